// What RoPE does to one layer's heads, and doing it (or undoing it) on the host in double precision.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace triattn {

// Of a token: its position, and in an image the row and the column; of text all three are the position.
using Coordinates = std::array<int32_t, 3>;
// Those of text.
std::vector<Coordinates> coordinates_of_text(const std::vector<int32_t> & positions);

// A head's dimensions are split into head_dim/2 bands of two. RoPE rotates n_rot dimensions from rot_begin on; their
// bands turn by omega*position. The dimensions before and behind them form bands as well, which pass unchanged and have
// omega 0, so that every formula over bands holds for all. Bands are counted in the order of dimensions: before,
// rotated, behind.
struct RopeLayout {
    int head_dim = 0;
    int rot_begin = 0;          // the first rotated dimension (not 0 in latent attention, where they come last)
    int n_rot = 0;              // rotated dimensions; 0 for a NoPE layer
    bool interleaved = false;   // bands are neighbours (2f, 2f+1), else halves of each of the three parts
    double scale = 1.0;         // RoPE also multiplies rotated dimensions by this (YaRN's attention factor)
    std::vector<double> omega;  // [head_dim/2], radians per position
    // [head_dim/2] with M-RoPE: which coordinate turns a band; empty: all turn by the first
    std::vector<uint8_t> sections;

    int32_t coordinate(int band, const Coordinates & position) const {
        return position[sections.empty() ? 0 : sections[static_cast<size_t>(band)]];
    }
    int n_bands() const { return head_dim / 2; }
    std::pair<int, int> dims(int band) const;
    double band_scale(int band) const { return band >= rot_begin / 2 && band < (rot_begin + n_rot) / 2 ? scale : 1.0; }

    struct Part { int begin, size; };
    std::vector<Part> parts() const;  // the non-empty ones among before, rotated, behind

    // Whether both cut heads into the same bands; how fast these turn may differ.
    bool same_bands(const RopeLayout & other) const;
};

// Throws StatsError if the numbers contradict each other.
void check(const RopeLayout & rope);

// out = RoPE(x, position); both [head_dim], may not alias.
void rotate(const RopeLayout & rope, const double * x, double position, double * out);

}  // namespace triattn
