// KV3 on GPUs: a block from 64 floats, and floats, dot products and values for attention from blocks. The same numbers
// as kv3_quantise.h. Blocks are 25 bytes long, so that everything is read byte by byte.
#pragma once

#include "kv3.h"

#include "ggml-cuda/common.cuh"

#define KV3_LEVEL_BYTES (10 | 31 << 8 | 55 << 16 | 88 << 24)

static __device__ __forceinline__ float kv3_unit(const uint8_t scale) {
    return __half2float(__ushort_as_half((unsigned short)(scale << 7))) * (1.0f / KV3_ONE);
}

// The whole numbers of the values i to i + 3 of a block, as the bytes of an int; i is a multiple of 4.
static __device__ __forceinline__ int kv3_four(const block_kv3 & block, const int i) {
    const uint8_t * const bytes = block.level + i % 16;
    const int shift = 2 * (i / 16);
    int numbers = 0, negative = 0;
    const int signs = block.sign[i / 8] >> (i % 8);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int level = bytes[j] >> shift & 3;
        numbers |= (KV3_LEVEL_BYTES >> (8 * level) & 0xff) << (8 * j);
        negative |= (signs >> j & 1) * (0xff << (8 * j));
    }
    return __vsub4(numbers ^ negative, negative);  // in two's complement, byte by byte
}

static __device__ __forceinline__ void dequantize_kv3(const void * vx, const int64_t ib, const int i, float2 & v) {
    const block_kv3 & block = ((const block_kv3 *)vx)[ib];
    const int four = kv3_four(block, i & ~3);
    const int8_t * const numbers = (const int8_t *)&four + (i & 3);  // i is even
    const float unit = kv3_unit(block.scale);
    v.x = unit * numbers[0];
    v.y = unit * numbers[1];
}

// --- a block from 64 floats ---

// Sums over |x| and the nearest levels, if one step of the levels is worth `unit`.
static __device__ __forceinline__ float2 kv3_match(const float * __restrict__ x, const float unit) {
    const float cut0 = 20.5f * unit, cut1 = 43.0f * unit, cut2 = 71.5f * unit;
    float2 sums = make_float2(0.0f, 0.0f);
    for (int i = 0; i < KV3_BLOCK; ++i) {
        const float magnitude = fabsf(x[i]);
        const float level = magnitude > cut1 ? (magnitude > cut2 ? 88.0f : 55.0f) : (magnitude > cut0 ? 31.0f : 10.0f);
        sums.x += magnitude * level;
        sums.y += level * level;
    }
    return sums;
}

static __device__ __forceinline__ float kv3_error(const float * __restrict__ x, const uint8_t scale) {
    const float unit = kv3_unit(scale);
    const float2 sums = kv3_match(x, unit);
    return unit * (unit * sums.y - 2.0f * sums.x);
}

static __device__ __forceinline__ void quantize_f32_kv3_block(const float * __restrict__ x,
                                                              block_kv3 * __restrict__ y) {
    float sum = 0.0f;
    for (int i = 0; i < KV3_BLOCK; ++i) {
        sum += x[i] * x[i];
    }
    *y = {};
    if (!isfinite(sum)) {
        y->scale = 0xff;
        return;
    }
    float unit = sqrtf(sum / KV3_BLOCK) / KV3_ONE;
    for (int i = 0; i < 2; ++i) {
        const float2 sums = kv3_match(x, unit);
        unit = sums.x / sums.y;
    }
    // the greatest byte of scale that is not above it, and those around
    const int below = __half_as_ushort(__float2half_rz(fminf(unit * KV3_ONE, 65504.0f))) >> 7;
    float least = 0.0f;
    for (int scale = max(below - 2, 1); scale < min(below + 4, 31 << 3); ++scale) {
        const float error = kv3_error(x, scale);
        if (error < least) {
            least = error;
            y->scale = scale;
        }
    }
    unit = kv3_unit(y->scale);
    for (int i = 0; i < KV3_BLOCK; ++i) {
        const float magnitude = fabsf(x[i]);
        const int level = (magnitude > 20.5f * unit) + (magnitude > 43.0f * unit) + (magnitude > 71.5f * unit);
        y->level[i % 16] |= level << (2 * (i / 16));
        y->sign[i / 8] |= (x[i] < 0.0f) << (i % 8);
    }
}

// --- attention's vector kernel ---

// A thread's part of the product of a row of keys and a query of q8_1.
template <int D, int nthreads>
static __device__ __forceinline__ float vec_dot_fattn_vec_KQ_kv3(const char * __restrict__ K_c,
                                                                 const void * __restrict__ Q_v,
                                                                 const int * __restrict__ Q_q8,
                                                                 const void * __restrict__ Q_ds_v) {
    const block_kv3 * const keys = (const block_kv3 *)K_c;
    GGML_UNUSED(Q_v);
    float sum = 0.0f;
#pragma unroll
    for (int k0 = 0; k0 < int(D / sizeof(int)); k0 += nthreads) {
        const int k = k0 + (nthreads == WARP_SIZE ? threadIdx.x : threadIdx.x % nthreads);
        const block_kv3 & block = keys[k / (KV3_BLOCK / 4)];
        const int product = ggml_cuda_dp4a(kv3_four(block, 4 * (k % (KV3_BLOCK / 4))), Q_q8[k0 / nthreads], 0);
        sum += kv3_unit(block.scale) * ((const float2 *)Q_ds_v)[k0 / nthreads].x * product;
    }
    return sum;
}

// The values i0 to i0 + ne - 1 of a row.
template <typename T, int ne>
static __device__ __forceinline__ void dequantize_V_kv3(const void * __restrict__ vx, void * __restrict__ dst,
                                                        const int64_t i0) {
    static_assert(ne == 4, "the kernel takes quantised values by four");
    const block_kv3 & block = ((const block_kv3 *)vx)[i0 / KV3_BLOCK];
    const int four = kv3_four(block, i0 % KV3_BLOCK);
    const int8_t * const numbers = (const int8_t *)&four;
    const float unit = kv3_unit(block.scale);
#pragma unroll
    for (int l = 0; l < ne; l += 2) {
        if constexpr (std::is_same_v<T, float>) {
            ((float *)dst)[l + 0] = unit * numbers[l + 0];
            ((float *)dst)[l + 1] = unit * numbers[l + 1];
        } else {
            ((half2 *)dst)[l / 2] = __floats2half2_rn(unit * numbers[l], unit * numbers[l + 1]);
        }
    }
}
