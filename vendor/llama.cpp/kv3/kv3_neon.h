// KV3 with Neon of 64-bit ARM; with the dot products of 8-bit integers where the processor has them.
#pragma once

#include <arm_neon.h>

namespace kv3 {

inline float to_float(ggml_half half) {
    __fp16 value;
    std::memcpy(&value, &half, sizeof value);
    return static_cast<float>(value);
}

// 16 of a block's whole numbers: the levels are in the lowest two bits of each byte, the signs in two bytes.
inline int8x16_t whole_numbers(const uint8x16_t & shifted, const uint8_t * sign) {
    alignas(16) static constexpr uint8_t BITS[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    alignas(16) static constexpr int8_t TABLE[16] = {LEVELS[0], LEVELS[1], LEVELS[2], LEVELS[3]};
    const int8x16_t magnitudes = vqtbl1q_s8(vld1q_s8(TABLE), vandq_u8(shifted, vdupq_n_u8(3)));
    const uint8x16_t signs = vcombine_u8(vdup_n_u8(sign[0]), vdup_n_u8(sign[1]));
    const int8x16_t negative = vreinterpretq_s8_u8(vtstq_u8(signs, vld1q_u8(BITS)));
    return vsubq_s8(veorq_s8(magnitudes, negative), negative);
}

class Dot {
public:
    void add(const block_kv3 & key, const block_q8_0 * query, float first, float second) {
        const uint8x16_t bytes = vld1q_u8(key.level);
        add_half(whole_numbers(bytes, key.sign), whole_numbers(vshrq_n_u8(bytes, 2), key.sign + 2), query[0], first);
        add_half(whole_numbers(vshrq_n_u8(bytes, 4), key.sign + 4), whole_numbers(vshrq_n_u8(bytes, 6), key.sign + 6),
                 query[1], second);
    }
    float sum() const { return vaddvq_f32(sums_); }

private:
    void add_half(const int8x16_t & low, const int8x16_t & high, const block_q8_0 & query, float scale) {
        const int8x16_t query_low = vld1q_s8(query.qs), query_high = vld1q_s8(query.qs + 16);
#if defined(__ARM_FEATURE_DOTPROD)
        const int32x4_t sums = vdotq_s32(vdotq_s32(vdupq_n_s32(0), low, query_low), high, query_high);
#else
        int16x8_t products = vmull_s8(vget_low_s8(low), vget_low_s8(query_low));
        products = vmlal_s8(products, vget_high_s8(low), vget_high_s8(query_low));
        int32x4_t sums = vpaddlq_s16(products);
        products = vmull_s8(vget_low_s8(high), vget_low_s8(query_high));
        products = vmlal_s8(products, vget_high_s8(high), vget_high_s8(query_high));
        sums = vaddq_s32(sums, vpaddlq_s16(products));
#endif
        sums_ = vfmaq_n_f32(sums_, vcvtq_f32_s32(sums), scale);
    }

    float32x4_t sums_ = vdupq_n_f32(0);
};

inline void add_weighted(const block_kv3 & block, float factor, float * y) {
    const uint8x16_t bytes = vld1q_u8(block.level);
    const auto add = [&](const uint8x16_t & shifted, int part) {
        const int8x16_t numbers = whole_numbers(shifted, block.sign + 2 * part);
        const int16x8_t halves[2] = {vmovl_s8(vget_low_s8(numbers)), vmovl_s8(vget_high_s8(numbers))};
        for (int half = 0; half < 2; ++half) {
            float * const to = y + 16 * part + 8 * half;
            const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves[half])));
            const float32x4_t high = vcvtq_f32_s32(vmovl_s16(vget_high_s16(halves[half])));
            vst1q_f32(to, vfmaq_n_f32(vld1q_f32(to), low, factor));
            vst1q_f32(to + 4, vfmaq_n_f32(vld1q_f32(to + 4), high, factor));
        }
    };
    add(bytes, 0);
    add(vshrq_n_u8(bytes, 2), 1);
    add(vshrq_n_u8(bytes, 4), 2);
    add(vshrq_n_u8(bytes, 6), 3);
}

}  // namespace kv3
