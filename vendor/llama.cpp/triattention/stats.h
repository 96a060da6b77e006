// The statistics of a model's own queries: what calibration measures and scoring reads.
#pragma once

#include "rope.h"

#include <cstdint>
#include <vector>

namespace triattn {

// One attention layer that owns a KV cache. `n_head` counts all query heads that read this cache, grouped by KV head.
struct LayerStats {
    int layer = 0;  // index in the model
    int n_head = 0;
    int n_head_kv = 0;
    RopeLayout rope;
    std::vector<float> centre;     // [n_head, head_dim]   E[q], before RoPE
    std::vector<float> magnitude;  // [n_head, head_dim/2] E|q_f|, before RoPE
    // [n_head_kv, n_key_features] weights of key_features, whose sum is ln of the attention that a key can expect;
    // empty: not fitted
    std::vector<float> fit;
};

// Throws StatsError if the numbers contradict each other or are not finite.
void check(const LayerStats & layer);

struct Stats {
    std::vector<LayerStats> layers;  // ascending by layer
    int64_t n_tokens = 0;
};

}  // namespace triattn
