// What RoPE does to one layer's heads, and doing it (or undoing it) on the host in double precision.
#pragma once

#include <utility>
#include <vector>

namespace triattn {

// A head's dimensions are split into head_dim/2 bands of two. The first n_rot/2 bands are rotated by omega*position,
// the others pass unchanged and have omega 0, so that every formula over bands holds for them as well.
struct RopeLayout {
    int  head_dim    = 0;
    int  n_rot       = 0;      // rotated dimensions, at the front of the head; 0 for a NoPE layer
    bool interleaved = false;  // bands are neighbours (2f, 2f+1), else the two halves (f, f + half)
    double scale     = 1.0;    // RoPE also multiplies rotated dimensions by this (YaRN's attention factor)
    std::vector<double> omega; // [head_dim/2], radians per position

    int n_bands() const { return head_dim / 2; }
    std::pair<int, int> dims(int band) const;
    double band_scale(int band) const { return band < n_rot / 2 ? scale : 1.0; }
};

// Throws StatsError if the numbers contradict each other.
void check(const RopeLayout & rope);

// out = RoPE(x, position); both [head_dim], may not alias.
void rotate(const RopeLayout & rope, const double * x, double position, double * out);

}  // namespace triattn
