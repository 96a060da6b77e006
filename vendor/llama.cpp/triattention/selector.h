// Chooses which keys each head keeps. Pure host code: scores in, marks out.
#pragma once

#include "mode.h"

#include <cstdint>
#include <vector>

namespace triattn {

struct LayerShape {
    int n_head;
    int n_head_kv;
};

// kept[layer][kv_head][key]: 1 if that head keeps the key. All heads keep the same number of keys.
using Kept = std::vector<std::vector<std::vector<uint8_t>>>;

// Scores to choose by: scores[layer][(kv_head*n_keys) + key].
using Scores = std::vector<std::vector<float>>;

// The least deviation that a head's scores are divided by.
constexpr double LEAST_DEVIATION = 1e-6;

// From scores of query heads [n_head, n_keys]: the z-score over the keys (biased deviation), then the maximum over the
// query heads of each KV head, to `out` [n_head_kv, n_keys]. Throws DecodeError if a score is not finite.
void group_scores(const float * scores, size_t n_keys, LayerShape shape, float * out);

// Throws the DecodeError of a score that is not finite.
[[noreturn]] void throw_not_finite();

// Keeps the `n_keep` best of `n_keys` in every head; of equal ones the newer key. `scores` may be empty where
// needs_scores(mode) is false. `seed` serves Mode::random alone.
Kept select(Mode mode, const Scores & scores, const std::vector<LayerShape> & shapes, size_t n_keys, size_t n_keep,
            uint64_t seed, int n_threads = 1);

// Marks of all keys from those of the ones that are not protected; protected ones are kept.
Kept with_protected(const Kept & kept, const std::vector<uint8_t> & is_protected);

}  // namespace triattn
