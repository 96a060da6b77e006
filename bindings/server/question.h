// Which tokens of a request's prompt are its question: they choose what is kept of the rest. The same as in
// generation/question.py and generation/chat.py.
#pragma once

#include "server-task.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pytriattn::server {

// Tokens begin to end (exclusive) of a prompt; none: it has no question.
struct Question {
    size_t begin = 0, end = 0;
    bool is_there() const { return end > begin; }
};

// Where the request does not say: the last message of the user, of a long one its last tokens; of a prompt that is no chat
// its last tokens. No more than the budget holds, and all behind the last image.
Question find_question(const common_json & request, const server_task & task, const llama_vocab * vocab,
                       int32_t budget);

// What a request names: a number of last tokens, a text that stands in the prompt (of a long one the last tokens), or
// null: none. Throws std::invalid_argument, InvalidTokenError, BudgetError.
Question named_question(const common_json & value, const server_task & task, const llama_vocab * vocab, int32_t budget);

std::vector<llama_token> tokens_of(const Question & question, const server_tokens & prompt);

}  // namespace pytriattn::server
