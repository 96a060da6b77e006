// KV3 in ggml-base: the reference, for every machine.
#include "kv3_quantise.h"

void quantize_row_kv3_ref(const float * x, void * y, int64_t n) {
    auto * blocks = static_cast<block_kv3 *>(y);
    for (int64_t i = 0; i < n / KV3_BLOCK; ++i) {
        kv3::quantise(x + i * KV3_BLOCK, blocks[i]);
    }
}

void dequantize_row_kv3(const void * x, float * y, int64_t n) {
    const auto * blocks = static_cast<const block_kv3 *>(x);
    for (int64_t i = 0; i < n / KV3_BLOCK; ++i) {
        const float unit = kv3::UNITS[blocks[i].scale];
        for (int j = 0; j < KV3_BLOCK; ++j) {
            y[i * KV3_BLOCK + j] = unit * static_cast<float>(kv3::value_of(blocks[i], j));
        }
    }
}
