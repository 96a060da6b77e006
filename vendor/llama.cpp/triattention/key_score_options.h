// What the score of mode 'fitted' consists of: its parts and their weights (KeyScorer has the formula).
#pragma once

#include "standing_questions.h"

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

struct KeyScoreOptions {
    bool use_fit = true;  // each of these can be left out, for ablations
    bool use_received = true;
    double decay = 0.95;  // of attention received, for every 128 tokens
    double received_weight = 2.0;
    double question_weight = 30.0;
    double question_foreseen = 2.0;     // the question counts as so many times the standing ones
    double standing_weight = 20.0;      // of foreseen attention; 0: standing questions are not read
    double retrieval_share = 0.25;      // of the KV heads, those whose attention is foreseen
    int32_t least_retrieval_heads = 8;  // where there are so many: few alone foresee little
    double other_heads = 0.3;           // factor on foreseen attention for the keys of all others
    double value_power = 1.0;           // of the norm of a key's value, which attention is multiplied by
    double received_value_power = 0.0;  // the same for attention received
    int32_t stride = 16;                // every so many tokens one's queries are looked at
    int32_t spread_back = 2;            // an answer follows what its question matches: so many keys before
    int32_t spread_forward = 8;         // and after a key get its attention from standing questions too
    int32_t question_forward = 14;      // the same for the question
    std::vector<std::string> standing_questions = default_standing_questions();
};

// Throws BudgetError naming the value at fault.
void check(const KeyScoreOptions & options);

}  // namespace triattn
