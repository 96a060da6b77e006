// Questions that anybody might ask of any text. What their queries look for is worth keeping before a question is known.
#pragma once

#include "attention.h"

#include "llama.h"

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

class QuestionReader;

// Each ends where an answer would begin.
const std::vector<std::string> & default_standing_questions();

// How far behind the newest key the questions stand when they are asked.
constexpr int32_t STANDING_AHEAD = 8;

// The tokens of each question; none for a model without a vocabulary, and none of the default ones for a model that
// spells them. Throws BudgetError if a question is empty or too long.
std::vector<std::vector<llama_token>> standing_question_tokens(const llama_vocab * vocab,
                                                               const std::vector<std::string> & questions);

// The queries of the last tokens of each question, all read alone; positions as QuestionReader::read gives them, and it
// throws what that throws.
LayerQueries read_standing_questions(QuestionReader & reader, const std::vector<std::vector<llama_token>> & questions);

}  // namespace triattn
