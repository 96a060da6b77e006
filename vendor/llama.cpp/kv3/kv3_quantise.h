// Values to blocks of KV3 and back, in plain C++: what all other code of the type must agree with.
#pragma once

#include "kv3.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace kv3 {

constexpr std::array<int8_t, 4> LEVELS = KV3_LEVELS;
constexpr int FINITE_SCALES = 31 << 3;
constexpr uint8_t SCALE_NAN = 0xff;
constexpr int TRIED_BELOW = 3, TRIED_ABOVE = 3;  // bytes of scale

// What one step of LEVELS is worth, for each byte of scale.
constexpr std::array<float, 256> make_units() {
    std::array<float, 256> units{};
    for (int i = 0; i < 256; ++i) {
        const int exponent = i >> 3, mantissa = i & 7;
        float unit = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8) / KV3_ONE;
        for (int e = exponent == 0 ? 1 : exponent; e != 18; e += e < 18 ? 1 : -1) {
            unit = e < 18 ? unit / 2 : unit * 2;
        }
        units[i] = i < FINITE_SCALES ? unit : std::numeric_limits<float>::quiet_NaN();
    }
    return units;
}

inline constexpr std::array<float, 256> UNITS = make_units();

// How well a block is met if one step of LEVELS is worth `unit`: sums over |x| and the nearest levels. Sums of sixteen
// parts, which compilers turn into vectors.
struct Match {
    float xl = 0;  // of |x| * level
    float ll = 0;  // of level * level
};

inline Match match(const float * x, float unit) {
    constexpr float L0 = LEVELS[0], L1 = LEVELS[1], L2 = LEVELS[2], L3 = LEVELS[3];
    const float cut0 = unit * ((L0 + L1) / 2), cut1 = unit * ((L1 + L2) / 2), cut2 = unit * ((L2 + L3) / 2);
    float xl[16] = {}, ll[16] = {};
    for (int i = 0; i < KV3_BLOCK; i += 16) {
        for (int j = 0; j < 16; ++j) {
            const float magnitude = std::fabs(x[i + j]);
            float level = L0;
            level = magnitude > cut0 ? L1 : level;
            level = magnitude > cut1 ? L2 : level;
            level = magnitude > cut2 ? L3 : level;
            xl[j] += magnitude * level;
            ll[j] += level * level;
        }
    }
    Match sum;
    for (int j = 0; j < 16; ++j) {
        sum.xl += xl[j];
        sum.ll += ll[j];
    }
    return sum;
}

// A byte of scale close to the best: the first above the scale of least squares for the levels of the root mean square,
// fitted once more. -1 if a value is a NaN or an infinity.
inline int scale_above_fit(const float * x) {
    float squares[16] = {};
    for (int i = 0; i < KV3_BLOCK; i += 16) {
        for (int j = 0; j < 16; ++j) {
            squares[j] += x[i + j] * x[i + j];
        }
    }
    float sum = 0;
    for (float part : squares) {
        sum += part;
    }
    if (!std::isfinite(sum)) {
        return -1;
    }
    float unit = std::sqrt(sum / KV3_BLOCK) / KV3_ONE;
    for (int i = 0; i < 2; ++i) {
        const Match found = match(x, unit);
        unit = found.xl / found.ll;
    }
    const auto end = UNITS.begin() + FINITE_SCALES;
    return static_cast<int>(std::upper_bound(UNITS.begin(), end, unit) - UNITS.begin());
}

// The scale with the least squared error, each with the levels that are nearest then. The bytes around a fit are tried,
// since the error has many minima.
inline uint8_t choose_scale(const float * x) {
    const int above = scale_above_fit(x);
    if (above < 0) {
        return SCALE_NAN;
    }
    int best = 0;
    float least = 0;  // of errors without the sum of squares, which is the same for all; all zeros have this one
    for (int scale = std::max(above - TRIED_BELOW, 1); scale < std::min(above + TRIED_ABOVE, FINITE_SCALES); ++scale) {
        const Match found = match(x, UNITS[scale]);
        const float error = UNITS[scale] * (UNITS[scale] * found.ll - 2 * found.xl);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return static_cast<uint8_t>(best);
}

inline void quantise(const float * x, block_kv3 & block) {
    block = {};
    block.scale = choose_scale(x);
    if (block.scale == SCALE_NAN) {
        return;
    }
    constexpr float L0 = LEVELS[0], L1 = LEVELS[1], L2 = LEVELS[2], L3 = LEVELS[3];
    const float unit = UNITS[block.scale];
    const float cut0 = unit * ((L0 + L1) / 2), cut1 = unit * ((L1 + L2) / 2), cut2 = unit * ((L2 + L3) / 2);
    for (int i = 0; i < KV3_BLOCK / 4; ++i) {
        int levels = 0;
        for (int j = 0; j < 4; ++j) {
            const float magnitude = std::fabs(x[i + 16 * j]);
            levels |= ((magnitude > cut0) + (magnitude > cut1) + (magnitude > cut2)) << (2 * j);
        }
        block.level[i] = static_cast<uint8_t>(levels);
    }
    for (int i = 0; i < KV3_BLOCK / 8; ++i) {
        int signs = 0;
        for (int j = 0; j < 8; ++j) {
            signs |= (x[8 * i + j] < 0) << j;
        }
        block.sign[i] = static_cast<uint8_t>(signs);
    }
}

// The whole number that value `i` of a block stands for, in steps of UNITS[scale].
inline int value_of(const block_kv3 & block, int i) {
    const int level = LEVELS[block.level[i % 16] >> (2 * (i / 16)) & 3];
    return block.sign[i / 8] >> (i % 8) & 1 ? -level : level;
}

}  // namespace kv3
