#include "mode.h"

#include "errors.h"

#include <algorithm>
#include <utility>

namespace triattn {
namespace {

const std::pair<const char *, Mode> NAMES[] = {
    {"fitted", Mode::fitted},     {"per_layer_head", Mode::per_layer_head},
    {"per_head", Mode::per_head}, {"per_layer", Mode::per_layer},
    {"global", Mode::global},     {"recent", Mode::recent},
    {"random", Mode::random},     {"custom", Mode::custom},
};

}  // namespace

const std::vector<std::string> & mode_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> result;
        for (const auto & [name, mode] : NAMES) {
            if (mode != Mode::custom) {
                result.emplace_back(name);
            }
        }
        return result;
    }();
    return names;
}

std::string mode_name(Mode mode) {
    const auto * found =
        std::find_if(std::begin(NAMES), std::end(NAMES), [&](const auto & entry) { return entry.second == mode; });
    return found->first;
}

Mode mode_from_name(const std::string & name) {
    for (const auto & [text, mode] : NAMES) {
        if (name == text) {
            return mode;
        }
    }
    std::string known;
    for (const std::string & text : mode_names()) {
        known += (known.empty() ? "" : ", ") + text;
    }
    throw BudgetError("mode '" + name + "' is unknown; use one of " + known);
}

bool moves_rows(Mode mode) {
    return mode == Mode::fitted || mode == Mode::per_layer_head || mode == Mode::per_head || mode == Mode::per_layer ||
           mode == Mode::custom;
}

bool needs_scores(Mode mode) { return mode == Mode::global || (moves_rows(mode) && mode != Mode::custom); }

const char * const NOTHING_TO_EVICT =
    "no layer of this model has full attention, so there is nothing to evict; load it with budget=None";

void check_mode(Mode mode, const std::vector<int32_t> & n_head_kv, bool has_alibi) {
    if (n_head_kv.empty()) {
        throw UnsupportedModelError(NOTHING_TO_EVICT);
    }
    if (has_alibi && (moves_rows(mode) || needs_scores(mode))) {
        throw UnsupportedModelError(
            "this model's attention is biased by distance (ALiBi): scores do not know the bias, and a key that is "
            "moved would get another one; use mode='recent' or budget=None");
    }
    const bool are_equal =
        std::all_of(n_head_kv.begin(), n_head_kv.end(), [&](int32_t n) { return n == n_head_kv[0]; });
    if (mode == Mode::per_head && !are_equal) {
        throw UnsupportedModelError(
            "mode='per_head' needs the same number of KV heads in every layer; use per_layer_head");
    }
}

}  // namespace triattn
