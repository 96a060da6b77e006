// KV3 in the CPU backend: the dot product with q8_0 (keys) and the weighted sum (values), for the instructions that
// this module is compiled for. Each variant defines the same three names; the generic one says what they compute.
#include "kv3_feedback.h"
#include "kv3_quantise.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <cassert>
#include <cstring>

static_assert(KV3_BLOCK == 2 * QK8_0, "a block meets two blocks of q8_0");

#if defined(KV3_GENERIC)
#    include "kv3_generic.h"
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__F16C__)
#    include "kv3_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#    include "kv3_avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "kv3_neon.h"
#else
#    include "kv3_generic.h"
#endif

void quantize_row_kv3(const float * x, void * y, int64_t n) {
    auto * blocks = static_cast<block_kv3 *>(y);
    for (int64_t i = 0; i < n / KV3_BLOCK; ++i) {
        kv3::quantise(x + i * KV3_BLOCK, blocks[i]);
    }
}

void quantize_row_kv3_fed_back(const float * x, void * y, const void * feedback, int64_t d, int64_t n) {
    const auto * of_head = static_cast<const uint8_t *>(feedback);
    auto * blocks = static_cast<block_kv3 *>(y);
    for (int64_t i = 0; i < n; i += d, of_head += kv3_feedback_bytes(static_cast<size_t>(d))) {
        kv3::quantise_head(x + i, static_cast<int>(d), of_head, blocks + i / KV3_BLOCK);
    }
}

void ggml_vec_dot_kv3_q8_0(int n, float * s, size_t /*bs*/, const void * x, size_t /*bx*/, const void * y,
                           size_t /*by*/, int nrc) {
    assert(nrc == 1 && n % KV3_BLOCK == 0);
    (void)nrc;
    const auto * keys = static_cast<const block_kv3 *>(x);
    const auto * query = static_cast<const block_q8_0 *>(y);
    kv3::Dot dot;
    for (int i = 0; i < n / KV3_BLOCK; ++i) {
        const float unit = kv3::UNITS[keys[i].scale];
        dot.add(keys[i], query + 2 * i, unit * kv3::to_float(query[2 * i].d), unit * kv3::to_float(query[2 * i + 1].d));
    }
    *s = dot.sum();
}

void ggml_vec_mad_kv3(int64_t n, float * y, const void * x, float weight) {
    const auto * values = static_cast<const block_kv3 *>(x);
    for (int64_t i = 0; i < n / KV3_BLOCK; ++i) {
        kv3::add_weighted(values[i], weight * kv3::UNITS[values[i].scale], y + i * KV3_BLOCK);
    }
}
