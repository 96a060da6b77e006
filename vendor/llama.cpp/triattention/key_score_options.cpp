#include "key_score_options.h"

#include "errors.h"

#include <string>

namespace triattn {

void check(const KeyScoreOptions & options) {
    const auto refuse = [](const char * name, double value, const char * bound) {
        throw BudgetError(std::string(name) + " is " + std::to_string(value) + ", it must be " + bound);
    };
    if (!(options.decay >= 0.0 && options.decay <= 1.0)) refuse("decay", options.decay, "from 0 to 1");
    if (!(options.received_weight >= 0.0)) refuse("received_weight", options.received_weight, "at least 0");
    if (!(options.question_weight >= 0.0)) refuse("question_weight", options.question_weight, "at least 0");
    if (!(options.question_foreseen >= 0.0)) refuse("question_foreseen", options.question_foreseen, "at least 0");
    if (!(options.standing_weight >= 0.0)) refuse("standing_weight", options.standing_weight, "at least 0");
    if (!(options.retrieval_share > 0.0 && options.retrieval_share <= 1.0))
        refuse("retrieval_share", options.retrieval_share, "above 0 and at most 1");
    if (options.least_retrieval_heads < 1) refuse("least_retrieval_heads", options.least_retrieval_heads, "at least 1");
    if (!(options.other_heads >= 0.0 && options.other_heads <= 1.0))
        refuse("other_heads", options.other_heads, "from 0 to 1");
    if (!(options.value_power >= 0.0 && options.value_power <= 2.0))
        refuse("value_power", options.value_power, "from 0 to 2");
    if (!(options.received_value_power >= 0.0 && options.received_value_power <= 2.0))
        refuse("received_value_power", options.received_value_power, "from 0 to 2");
    if (options.stride < 1) refuse("stride", options.stride, "at least 1");
    if (options.spread_back < 0) refuse("spread_back", options.spread_back, "at least 0");
    if (options.spread_forward < 0) refuse("spread_forward", options.spread_forward, "at least 0");
    if (options.question_forward < 0) refuse("question_forward", options.question_forward, "at least 0");
}

}  // namespace triattn
