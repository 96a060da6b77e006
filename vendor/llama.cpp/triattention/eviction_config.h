// What is evicted, and when.
#pragma once

#include "eviction_view.h"
#include "key_score_options.h"
#include "mode.h"
#include "scorer.h"
#include "selector.h"

#include <cstdint>
#include <functional>

namespace triattn {

// Chooses the keys that stay. Every head must keep view.n_keep() keys, all protected ones among them.
using Chooser = std::function<Kept(const EvictionView & view)>;

struct EvictionConfig {
    Mode mode = Mode::fitted;
    int32_t budget = 0;      // keys kept per layer and KV head
    int32_t interval = 128;  // tokens between evictions
    int32_t window = 64;     // most recent keys, never evicted
    int32_t n_sink = 4;      // first keys, never evicted
    uint64_t seed = 0;       // Mode::random
    bool reread = false;     // Mode::fitted: read what is new once more before an eviction, to see what is looked for
    ScoreOptions score;      // Mode::per_layer_head and the others that score as published
    KeyScoreOptions key_score;  // Mode::fitted
    Chooser chooser;            // Mode::custom
};

// The least budget that holds the sink, the window and one key more.
int64_t least_budget(int32_t window, int32_t n_sink);

// Throws BudgetError naming the value at fault.
void check(const EvictionConfig & config);

// Checks that a prompt of which nothing may be evicted leaves room for the window. Throws BudgetError.
void check_protected_prompt(int64_t n_protected, const EvictionConfig & config);

// Whether less than a tenth of the budget can be chosen, since sinks, window and a protected prompt are always kept. Never
// where the newest keys are all that is kept anyway.
bool leaves_little_to_choose(const EvictionConfig & config, int64_t n_protected);

}  // namespace triattn
