// KV3 with AVX2 and FMA.
#pragma once

#include <immintrin.h>

namespace kv3 {

inline float to_float(ggml_half half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }

class Dot {
public:
    void add(const block_kv3 & key, const block_q8_0 * query, float first, float second) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(key.level));
        add_half(_mm256_set_m128i(_mm_srli_epi16(bytes, 2), bytes), key.sign, query[0], first);
        add_half(_mm256_set_m128i(_mm_srli_epi16(bytes, 6), _mm_srli_epi16(bytes, 4)), key.sign + 4, query[1], second);
    }
    float sum() const {
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(sums_), _mm256_extractf128_ps(sums_, 1));
        sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
    }

private:
    // 32 values, whose levels are in the lowest two bits of each byte
    void add_half(const __m256i & shifted, const uint8_t * sign, const block_q8_0 & query, float scale) {
        const __m256i levels = _mm256_set1_epi32(LEVELS[0] | LEVELS[1] << 8 | LEVELS[2] << 16 | LEVELS[3] << 24);
        const __m256i magnitudes = _mm256_shuffle_epi8(levels, _mm256_and_si256(shifted, _mm256_set1_epi8(3)));
        int32_t bits = 0;
        std::memcpy(&bits, sign, sizeof bits);
        // byte i of 32: 0xff if bit i is set
        const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
        const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
        const __m256i negative =
            _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), bit), bit);
        const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(query.qs));
        const __m256i signed_numbers = _mm256_sub_epi8(_mm256_xor_si256(numbers, negative), negative);
        const __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, signed_numbers), _mm256_set1_epi16(1));
        sums_ = _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums), sums_);
    }

    __m256 sums_ = _mm256_setzero_ps();
};

inline void add_weighted(const block_kv3 & block, float factor, float * y) {
    const __m256 values = _mm256_mul_ps(
        _mm256_set1_ps(factor),
        _mm256_set_ps(-LEVELS[3], -LEVELS[2], -LEVELS[1], -LEVELS[0], LEVELS[3], LEVELS[2], LEVELS[1], LEVELS[0]));
    // eight lanes test one bit each of a byte of signs, shifted to where the third bit of an index is
    const __m256i bit = _mm256_set_epi32(0x200, 0x100, 0x80, 0x40, 0x20, 0x10, 0x8, 0x4);
    const __m256i two_bits = _mm256_set1_epi32(3), sign_bit = _mm256_set1_epi32(4);
    for (int half = 0; half < 2; ++half) {
        const __m256i bytes =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(block.level + 8 * half)));
        for (int part = 0; part < 4; ++part) {
            const __m256i level = _mm256_and_si256(_mm256_srli_epi32(bytes, 2 * part), two_bits);
            const __m256i signs = _mm256_and_si256(_mm256_set1_epi32(block.sign[2 * part + half] << 2), bit);
            const __m256i negative = _mm256_and_si256(_mm256_cmpeq_epi32(signs, bit), sign_bit);
            float * const to = y + 16 * part + 8 * half;
            const __m256 found = _mm256_permutevar8x32_ps(values, _mm256_or_si256(level, negative));
            _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), found));
        }
    }
}

}  // namespace kv3
