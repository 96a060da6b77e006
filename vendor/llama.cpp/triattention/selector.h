// Chooses which keys each set keeps. Pure host code: scores in, marks out.
#pragma once

#include "scorer.h"

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

enum class Mode { per_layer_head, per_head, per_layer, global, recent, random };

// Throws BudgetError for a name that is none of them.
Mode mode_from_name(const std::string & name);

// Whether the mode can keep different keys in different heads: then rows must move.
bool moves_rows(Mode mode);
bool needs_scores(Mode mode);

struct LayerShape {
    int n_head;
    int n_head_kv;
};

// kept[layer][kv_head][key]: 1 if that head keeps the key. All heads keep the same number of keys.
using Kept = std::vector<std::vector<std::vector<uint8_t>>>;

// z-score of each query head over the unprotected keys (biased deviation, at least 1e-6), then the maximum over the query
// heads of each KV head: [n_head_kv, n_keys]. Throws DecodeError if a score is not finite.
std::vector<float> group_scores(const std::vector<float> & scores, LayerShape shape, const std::vector<uint8_t> & is_protected);

// Keeps `n_keep` of the keys in every head: all protected ones, then those with the best scores; equal scores: the newer key.
// `scores` may be empty where needs_scores(mode) is false. `seed` serves Mode::random alone.
// Throws BudgetError if more than n_keep keys are protected.
Kept select(Mode mode, const Scores & scores, const std::vector<LayerShape> & shapes, const std::vector<uint8_t> & is_protected,
            size_t n_keep, uint64_t seed);

}  // namespace triattn
