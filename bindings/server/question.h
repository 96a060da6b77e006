// Which tokens of a request's prompt are its question: they choose what is kept of the rest. The same rules as those of
// generation/question.py.
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

// Where the request does not say: the last message of the user, or the last tokens of a prompt that is no chat. No more
// than may be asked under the budget, and all behind the last image.
Question find_question(const server_task & task, int32_t budget);

// What a request names: a number of last tokens, a text that stands in the prompt (of a long one the last tokens), or
// null: none. Throws std::invalid_argument, InvalidTokenError, BudgetError.
Question named_question(const common_json & value, const server_task & task, const llama_vocab * vocab, int32_t budget);

std::vector<llama_token> tokens_of(const Question & question, const server_tokens & prompt);

}  // namespace pytriattn::server
