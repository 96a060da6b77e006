// What can be told of a cached key when it is read, as numbers: what a fitted score is a weighted sum of.
#pragma once

#include "rope.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace triattn {

// The features of a key, in this order: 1; ln|v|; ln|k|; the key before RoPE [head_dim]; the magnitudes of its bands
// [head_dim/2]; its value [head_dim_v]. Without a value of its own (latent attention) |v| counts as 1.
size_t n_key_features(int head_dim, int head_dim_v);

// The rotation of a band back to before RoPE: cosine and sine of its angle, divided by the band's scale.
struct Turn { double cosine, sine; };

// The rotations of all bands of keys at these positions, [n_keys, n_bands]: the same for all heads of a layer.
std::vector<Turn> turns_back(const RopeLayout & rope, const std::vector<Coordinates> & positions);

// Keys as a cache stores them (after RoPE, without Hadamard matrix) [n_keys, head_dim], values [n_keys, head_dim_v], and
// how to turn the keys back. Returns [n_keys, n_key_features].
std::vector<float> key_features(const RopeLayout & rope, const std::vector<float> & keys,
                                const std::vector<float> & values, const std::vector<Turn> & turns);

// What is added to attention before its logarithm is taken, and to what a key is worth.
constexpr float LEAST_ATTENTION = 1e-5f;

}  // namespace triattn
