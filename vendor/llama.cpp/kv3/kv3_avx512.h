// KV3 with AVX-512 (F, BW and VL; VNNI if there is one).
#pragma once

#include <immintrin.h>

namespace kv3 {

inline float to_float(ggml_half half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }

class Dot {
public:
    void add(const block_kv3 & key, const block_q8_0 * query, float first, float second) {
        // each 128-bit lane takes other two bits of the same 16 bytes
        const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(key.level)));
        const __m512i shifts = _mm512_set_epi64(6, 6, 4, 4, 2, 2, 0, 0);
        const __m512i index = _mm512_and_si512(_mm512_srlv_epi64(bytes, shifts), _mm512_set1_epi8(3));
        const __m512i levels = _mm512_set1_epi32(LEVELS[0] | LEVELS[1] << 8 | LEVELS[2] << 16 | LEVELS[3] << 24);
        const __m512i magnitudes = _mm512_shuffle_epi8(levels, index);
        const __m512i numbers = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(query[0].qs))),
            _mm256_loadu_si256(reinterpret_cast<const __m256i *>(query[1].qs)), 1);
        __mmask64 signs = 0;
        std::memcpy(&signs, key.sign, sizeof signs);
        const __m512i signed_numbers = _mm512_mask_sub_epi8(numbers, signs, _mm512_setzero_si512(), numbers);
#if defined(__AVX512VNNI__)
        const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), magnitudes, signed_numbers);
#else
        const __m512i sums = _mm512_madd_epi16(_mm512_maddubs_epi16(magnitudes, signed_numbers), _mm512_set1_epi16(1));
#endif
        const __m512 scales = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(first), _mm512_set1_ps(second));
        sums_ = _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(sums), sums_);
    }
    float sum() const { return _mm512_reduce_add_ps(sums_); }

private:
    __m512 sums_ = _mm512_setzero_ps();
};

inline void add_weighted(const block_kv3 & block, float factor, float * y) {
    const __m512 values =
        _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_set_ps(0, 0, 0, 0, 0, 0, 0, 0, -LEVELS[3], -LEVELS[2], -LEVELS[1],
                                                            -LEVELS[0], LEVELS[3], LEVELS[2], LEVELS[1], LEVELS[0]));
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(block.level)));
    const __m512i two_bits = _mm512_set1_epi32(3), sign_bit = _mm512_set1_epi32(4);
    uint64_t signs = 0;
    std::memcpy(&signs, block.sign, sizeof signs);
    const auto add = [&](const __m512i & shifted, int part) {
        const __m512i level = _mm512_and_si512(shifted, two_bits);
        const __m512i index =
            _mm512_mask_or_epi32(level, static_cast<__mmask16>(signs >> (16 * part)), level, sign_bit);
        float * const to = y + 16 * part;
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_permutexvar_ps(index, values)));
    };
    add(bytes, 0);
    add(_mm512_srli_epi32(bytes, 2), 1);
    add(_mm512_srli_epi32(bytes, 4), 2);
    add(_mm512_srli_epi32(bytes, 6), 3);
}

}  // namespace kv3
