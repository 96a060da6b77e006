// Values to blocks of KV3 with their errors fed back (kv3.h says how), in plain C++.
#pragma once

#include "kv3_quantise.h"

#include <vector>

namespace kv3 {

// Bytes of scale that are tried at once, from the fourth below to the third above the first byte above the fit.
constexpr int SCALES = 8, SCALES_BELOW = 4;

// A number for each scale. Compilers that have vectors as types make faster code of them than of loops.
#if defined(__GNUC__)
typedef float Scales __attribute__((vector_size(SCALES * sizeof(float))));
#else
struct Scales {
    float of[SCALES];
    float & operator[](int s) { return of[s]; }
    float operator[](int s) const { return of[s]; }
};
#endif

constexpr float L0 = LEVELS[0], L1 = LEVELS[1], L2 = LEVELS[2], L3 = LEVELS[3];

// A value that x stands for and that wants to be `wanted - more` becomes `value`, which leaves `cost` and `errors`.
inline void step(float x, float wanted, float weight, float unit, const Scales & more, const Scales & scales,
                 Scales & value, Scales & cost, Scales & errors) {
#if defined(__GNUC__)
    const Scales target = wanted - more;
    const Scales magnitude = target < 0 ? -target : target;
    Scales level = scales * L0;
    level = magnitude > scales * ((L0 + L1) / 2) ? scales * L1 : level;
    level = magnitude > scales * ((L1 + L2) / 2) ? scales * L2 : level;
    level = magnitude > scales * ((L2 + L3) / 2) ? scales * L3 : level;
    value = target < 0 ? -level : level;
    cost += weight * (value - target) * (value - target);
    errors = unit * (value - x);
#else
    for (int s = 0; s < SCALES; ++s) {
        const float target = wanted - more[s];
        const float magnitude = std::fabs(target);
        float level = scales[s] * L0;
        level = magnitude > scales[s] * ((L0 + L1) / 2) ? scales[s] * L1 : level;
        level = magnitude > scales[s] * ((L1 + L2) / 2) ? scales[s] * L2 : level;
        level = magnitude > scales[s] * ((L2 + L3) / 2) ? scales[s] * L3 : level;
        value[s] = target < 0 ? -level : level;
        cost[s] += weight * (value[s] - target) * (value[s] - target);
        errors[s] = unit * (value[s] - x);
    }
#endif
}

inline void add_product(float factor, const Scales & numbers, Scales & sum) {
#if defined(__GNUC__)
    sum += factor * numbers;
#else
    for (int s = 0; s < SCALES; ++s) {
        sum[s] += factor * numbers[s];
    }
#endif
}

// The feedback of one head of `d` values.
class Feedback {
public:
    Feedback(const void * bytes, int d)
        : d_(d), weight_(static_cast<const float *>(bytes)), back_(reinterpret_cast<const int8_t *>(weight_ + d + 1)) {}
    float weight(int i) const { return weight_[i]; }
    float unit() const { return weight_[d_]; }
    // Of value i, at all j from `begin` to the end of its block; those up to i say nothing. Signed bytes may point to
    // anything: loops over them and floats together would not become vectors.
    void read_back(int i, int begin, float * floats) const {
        const int8_t * const numbers = back_ + (2 * d_ - i - 1) * i / 2 - i - 1;
        for (int j = std::max(begin, i + 1); j < begin + KV3_BLOCK; ++j) {
            floats[j - begin] = numbers[j];
        }
    }

private:
    int d_;
    const float * weight_;
    const int8_t * back_;
};

// Stores the values from `begin` on, which owe `owed` for the errors of those before; writes their own errors in units
// of the feedback.
inline void quantise_block(const float * x, const float * owed, const Feedback & feedback, int begin, float * errors,
                           block_kv3 & block) {
    block = {};
    float wanted[KV3_BLOCK];
    for (int i = 0; i < KV3_BLOCK; ++i) {
        wanted[i] = x[i] - owed[i];
    }
    const int above = scale_above_fit(wanted);
    if (above < 0) {
        block.scale = SCALE_NAN;
        std::fill(errors, errors + KV3_BLOCK, 0.0f);
        return;
    }
    const int first = std::clamp(above - SCALES_BELOW, 0, FINITE_SCALES - SCALES);
    Scales scales = {}, cost = {}, more[KV3_BLOCK] = {}, values[KV3_BLOCK];  // more: owed for errors of this block
    for (int s = 0; s < SCALES; ++s) {
        scales[s] = UNITS[first + s];
    }
    for (int i = 0; i < KV3_BLOCK; ++i) {
        Scales own;
        step(x[i], wanted[i], feedback.weight(begin + i), feedback.unit(), more[i], scales, values[i], cost, own);
        float back[KV3_BLOCK];
        feedback.read_back(begin + i, begin, back);
        for (int j = i + 1; j < KV3_BLOCK; ++j) {
            add_product(back[j], own, more[j]);
        }
    }
    int best = 0;
    for (int s = 1; s < SCALES; ++s) {
        best = cost[s] < cost[best] ? s : best;
    }
    block.scale = static_cast<uint8_t>(first + best);
    const float scale = scales[best];
    for (int i = 0; i < KV3_BLOCK; ++i) {
        const float value = values[i][best], magnitude = std::fabs(value);
        const int level = (magnitude > scale * L0) + (magnitude > scale * L1) + (magnitude > scale * L2);
        block.level[i % 16] |= static_cast<uint8_t>(level << (2 * (i / 16)));
        block.sign[i / 8] |= static_cast<uint8_t>((value < 0) << (i % 8));
        errors[i] = feedback.unit() * (value - x[i]);
    }
}

inline void quantise_head(const float * x, int d, const void * bytes, block_kv3 * blocks) {
    const Feedback feedback(bytes, d);
    std::vector<float> owed(static_cast<size_t>(d), 0.0f);
    for (int begin = 0; begin < d; begin += KV3_BLOCK) {
        float errors[KV3_BLOCK];
        quantise_block(x + begin, owed.data() + begin, feedback, begin, errors, blocks[begin / KV3_BLOCK]);
        for (int later = begin + KV3_BLOCK; later < d; later += KV3_BLOCK) {
            for (int i = 0; i < KV3_BLOCK; ++i) {
                float back[KV3_BLOCK];
                feedback.read_back(begin + i, later, back);
                for (int j = 0; j < KV3_BLOCK; ++j) {
                    owed[static_cast<size_t>(later + j)] += back[j] * errors[i];
                }
            }
        }
    }
}

}  // namespace kv3
