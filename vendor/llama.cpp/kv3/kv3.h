// KV3: rows of keys and values in three bits a value, as a type of ggml. C and C++.
//
// A row consists of blocks of 64 values, none of which knows of the others: rows can be moved as they are. A value
// is one of eight numbers: the centroids of the quantiser with the least squared error for a normal distribution
// (Lloyd and Max), times the scale of its block. llama.cpp rotates quantised rows by a Hadamard matrix before it stores
// them, which is what makes their values nearly normal.
//
// A block has a scale of one byte: 3.125 bits a value. With the two bytes that other types have, blocks of 64 would
// take more than a fifth of f16; with blocks of 128, heads of 64 would have no KV3 cache.
#pragma once

#include "ggml.h"

#include <stddef.h>
#include <stdint.h>

#define KV3_BLOCK 64

// The centroids' magnitudes .245094 .756005 1.343909 2.151946 as whole numbers of 1/KV3_ONE, so that dot products are
// those of 8-bit integers. This adds 1.1e-6 to a relative squared error of 0.0346.
#define KV3_LEVELS {10, 31, 55, 88}
#define KV3_ONE 40.92527f

typedef struct {
    uint8_t level[KV3_BLOCK / 4];  // two bits a value: value i in byte i % 16, from bit 2 * (i / 16)
    uint8_t sign[KV3_BLOCK / 8];   // one bit a value: value i in byte i / 8, bit i % 8; set: negative
    uint8_t scale;                 // the upper byte of a half float without its sign: 5 bits of exponent, 3 of mantissa
} block_kv3;

// How keys can be stored so that queries see less of their errors. The values of a head get their levels one after the
// other, and each pays for the errors of those before it: value i is stored as the level that is nearest to itself less
// `unit * back[j][i]` times the error of each value j < i. Let W be the mean square of a head's queries (d x d), and
// W = M^T D M, where M is lower triangular with ones on its diagonal. If back[j][i] stands for M[i][j] and weight[i] is
// D[i], then the weighted sum of the squares that are left is the mean square of the products of queries and error.
// With a unit of 0 and weights of 1, values get the nearest levels.
//
// As bytes, for each head: d floats (weight), a float (unit), and (d - 1) + ... + 1 signed bytes (back[0][1] ...
// back[0][d - 1], back[1][2] ... back[d - 2][d - 1]). d is a multiple of KV3_BLOCK.
static inline size_t kv3_feedback_bytes(size_t d) { return (d + 1) * sizeof(float) + d * (d - 1) / 2; }

#ifdef __cplusplus
static_assert(sizeof(block_kv3) == 25, "a block must not be padded");
extern "C" {
#endif

// Of ggml-base. `n` is a multiple of KV3_BLOCK. Rows that hold a NaN or an infinity become NaN, block by block.
GGML_API void quantize_row_kv3_ref(const float * x, void * y, int64_t n);
GGML_API void dequantize_row_kv3(const void * x, float * y, int64_t n);

// Of the CPU backend, in the widest instructions that it is compiled for.
void quantize_row_kv3(const float * x, void * y, int64_t n);
// The row has n / d heads, and `feedback` so many times kv3_feedback_bytes(d).
void quantize_row_kv3_fed_back(const float * x, void * y, const void * feedback, int64_t d, int64_t n);
void ggml_vec_dot_kv3_q8_0(int n, float * s, size_t bs, const void * x, size_t bx, const void * y, size_t by, int nrc);
// y += weight * x
void ggml_vec_mad_kv3(int64_t n, float * y, const void * x, float weight);

#ifdef __cplusplus
}
#endif
