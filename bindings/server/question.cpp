#include "question.h"

#include "question_reader.h"

#include "common.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace pytriattn::server {
namespace {

constexpr size_t QUESTION_TOKENS = 64;  // of a prompt that is no chat, or of a long message
constexpr auto MOST = static_cast<size_t>(triattn::QuestionReader::MAX_TOKENS);

// Where the text behind the last image begins.
size_t behind_images(const server_tokens & prompt) {
    size_t n = prompt.size();
    while (n > 0 && prompt[n - 1] != LLAMA_TOKEN_NULL) {
        --n;
    }
    return n;
}

Question last_tokens(const server_tokens & prompt, size_t n) {
    const size_t size = prompt.size();
    return {std::max(behind_images(prompt), size - std::min(size, n)), size};
}

}  // namespace

Question find_question(const server_task & task, int32_t budget) {
    const size_t longest = std::min(MOST, static_cast<size_t>(budget));
    const auto & spans = task.params.message_spans.spans;
    const auto user = std::find_if(spans.rbegin(), spans.rend(), [](const common_chat_msg_span & span) {
        return span.role == COMMON_CHAT_ROLE_USER;
    });
    if (user == spans.rend()) {
        return last_tokens(task.tokens, std::min(QUESTION_TOKENS, longest));
    }
    const size_t end = std::min(user->pos + user->len, task.tokens.size());
    const size_t begin = std::min(std::max(user->pos, behind_images(task.tokens)), end);
    const size_t n = end - begin;
    return {n <= longest ? begin : end - std::min(QUESTION_TOKENS, longest), end};
}

Question named_question(const common_json & value, const server_task & task, const llama_vocab * vocab,
                        int32_t budget) {
    if (value.is_null()) {
        return {};
    }
    if (value.is_number_integer()) {
        const auto n = value.get<int64_t>();
        if (n < 0) {
            throw std::invalid_argument("a question of " + std::to_string(n) + " tokens makes no sense");
        }
        triattn::check_question_length(n, budget);
        return n > 0 ? last_tokens(task.tokens, static_cast<size_t>(n)) : Question{};
    }
    if (!value.is_string()) {
        throw std::invalid_argument(
            "the question is " + value.dump_safe() +
            ", it must be a text that stands in the prompt, a number of tokens at its end, or null");
    }
    const std::string text = string_strip(value.get<std::string>());
    const size_t first = behind_images(task.tokens);
    std::string prompt;
    std::vector<size_t> ends;  // of each token, in bytes
    for (size_t i = first; i < task.tokens.size(); ++i) {
        prompt += common_token_to_piece(vocab, task.tokens[i], true);
        ends.push_back(prompt.size());
    }
    const size_t at = text.empty() ? std::string::npos : prompt.rfind(text);
    if (at == std::string::npos) {
        throw std::invalid_argument("the question is not in the prompt; give a text that stands there word for word");
    }
    const auto begin = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
    const auto last = std::lower_bound(ends.begin(), ends.end(), at + text.size()) - ends.begin();
    const Question found = {first + static_cast<size_t>(begin), first + static_cast<size_t>(last) + 1};
    const Question asked = {std::max(found.begin, found.end - std::min(found.end, MOST)), found.end};
    triattn::check_question_length(static_cast<int64_t>(asked.end - asked.begin), budget);
    return asked;
}

std::vector<llama_token> tokens_of(const Question & question, const server_tokens & prompt) {
    std::vector<llama_token> tokens;
    for (size_t i = question.begin; i < question.end; ++i) {
        tokens.push_back(prompt[i]);
    }
    return tokens;
}

}  // namespace pytriattn::server
