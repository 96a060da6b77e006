// KV3 without vector instructions, and what the other variants compute.
#pragma once

#include "ggml-impl.h"

namespace kv3 {

inline float to_float(ggml_half half) { return GGML_FP16_TO_FP32(half); }

class Dot {
public:
    // Adds the product of a block and two of q8_0; `first` and `second` are the products of their scales.
    void add(const block_kv3 & key, const block_q8_0 * query, float first, float second) {
        int sums[2] = {};
        for (int i = 0; i < KV3_BLOCK; ++i) {
            sums[i / QK8_0] += value_of(key, i) * query[i / QK8_0].qs[i % QK8_0];
        }
        sum_ += first * static_cast<float>(sums[0]) + second * static_cast<float>(sums[1]);
    }
    float sum() const { return sum_; }

private:
    float sum_ = 0;
};

// y += factor * the block's whole numbers
inline void add_weighted(const block_kv3 & block, float factor, float * y) {
    for (int i = 0; i < KV3_BLOCK; ++i) {
        y[i] += factor * static_cast<float>(value_of(block, i));
    }
}

}  // namespace kv3
