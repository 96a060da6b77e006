#include "question.h"

#include "question_reader.h"

#include "common.h"

#include <algorithm>
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

std::string stripped(const std::string & text) {
    const char * const blanks = " \t\n\r\f\v";
    const size_t begin = text.find_first_not_of(blanks);
    return begin == std::string::npos ? std::string() : text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

// The last place of a text behind the last image; none: it does not stand there.
Question last_place(const std::string & text, const server_tokens & prompt, const llama_vocab * vocab) {
    const std::string wanted = stripped(text);
    const size_t first = behind_images(prompt);
    std::string all;
    std::vector<size_t> ends;  // of each token, in bytes
    for (size_t i = first; i < prompt.size(); ++i) {
        all += common_token_to_piece(vocab, prompt[i], true);
        ends.push_back(all.size());
    }
    const size_t at = wanted.empty() ? std::string::npos : all.rfind(wanted);
    if (at == std::string::npos) {
        return {};
    }
    const auto begin = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
    const auto last = std::lower_bound(ends.begin(), ends.end(), at + wanted.size()) - ends.begin();
    return {first + static_cast<size_t>(begin), first + static_cast<size_t>(last) + 1};
}

// A text of an object; empty: it has none of this name.
std::string text_of(const common_json & object, const char * name) {
    const bool has_one = object.is_object() && object.contains(name) && object.at(name).is_string();
    return has_one ? object.at(name).get<std::string>() : std::string();
}

// What the user said last in a chat, of several parts the last text; empty: nothing.
std::string last_said(const common_json & request) {
    std::string said;
    if (!request.contains("messages") || !request.at("messages").is_array()) {
        return said;
    }
    for (const common_json & message : request.at("messages")) {
        if (text_of(message, "role") != "user") {
            continue;
        }
        said = text_of(message, "content");
        if (!message.contains("content") || !message.at("content").is_array()) {
            continue;
        }
        for (const common_json & part : message.at("content")) {
            said = text_of(part, "type") == "text" ? text_of(part, "text") : said;
        }
    }
    return said;
}

}  // namespace

Question find_question(const common_json & request, const server_task & task, const llama_vocab * vocab,
                       int32_t budget) {
    const auto longest = std::min(MOST, static_cast<size_t>(budget));
    const size_t usual = std::min(QUESTION_TOKENS, longest);
    const Question said = last_place(last_said(request), task.tokens, vocab);
    if (!said.is_there()) {
        return last_tokens(task.tokens, usual);
    }
    return said.end - said.begin <= longest ? said : Question{said.end - usual, said.end};
}

Question named_question(const common_json & value, const server_task & task, const llama_vocab * vocab,
                        int32_t budget) {
    if (value.is_null()) {
        return {};
    }
    Question named;
    if (value.is_number_integer()) {
        const auto n = value.get<int64_t>();
        if (n < 0 || n > static_cast<int64_t>(MOST)) {
            throw std::invalid_argument("it is " + std::to_string(n) + " tokens, it must be from 0 to " +
                                        std::to_string(MOST));
        }
        named = n > 0 ? last_tokens(task.tokens, static_cast<size_t>(n)) : Question{};
    } else if (value.is_string()) {
        const Question found = last_place(value.get<std::string>(), task.tokens, vocab);
        if (!found.is_there()) {
            throw std::invalid_argument("it is not in the prompt; give a text that stands there word for word");
        }
        named = {std::max(found.begin, found.end - std::min(found.end, MOST)), found.end};
    } else {
        throw std::invalid_argument(
            "it is " + value.dump_safe() +
            ", it must be a text that stands in the prompt, a number of tokens at its end, or null");
    }
    triattn::check_question_length(static_cast<int64_t>(named.end - named.begin), budget);
    return named;
}

std::vector<llama_token> tokens_of(const Question & question, const server_tokens & prompt) {
    std::vector<llama_token> tokens;
    for (size_t i = question.begin; i < question.end; ++i) {
        tokens.push_back(prompt[i]);
    }
    return tokens;
}

}  // namespace pytriattn::server
