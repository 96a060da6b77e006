#include "rope.h"

#include "errors.h"

#include <cmath>
#include <string>

namespace triattn {

std::pair<int, int> RopeLayout::dims(int band) const {
    if (interleaved) {
        return {2 * band, 2 * band + 1};
    }
    const int rotated = n_rot / 2;
    if (band < rotated) {
        return {band, band + rotated};
    }
    return {n_rot + band - rotated, band + head_dim / 2};
}

void check(const RopeLayout & rope) {
    if (rope.head_dim <= 0 || rope.head_dim % 2 != 0) {
        throw StatsError("head dimension " + std::to_string(rope.head_dim) + " is not a positive even number");
    }
    if (rope.n_rot < 0 || rope.n_rot > rope.head_dim || rope.n_rot % 2 != 0) {
        throw StatsError("n_rot " + std::to_string(rope.n_rot) + " does not fit a head of " + std::to_string(rope.head_dim));
    }
    if (static_cast<int>(rope.omega.size()) != rope.n_bands()) {
        throw StatsError("expected " + std::to_string(rope.n_bands()) + " band frequencies, got " + std::to_string(rope.omega.size()));
    }
    if (!(rope.scale > 0) || !std::isfinite(rope.scale)) {
        throw StatsError("RoPE scale must be positive");
    }
    for (double w : rope.omega) {
        if (!std::isfinite(w)) {
            throw StatsError("a RoPE frequency is not finite");
        }
    }
}

void rotate(const RopeLayout & rope, const double * x, double position, double * out) {
    for (int f = 0; f < rope.n_bands(); ++f) {
        const auto [a, b] = rope.dims(f);
        const double angle = rope.omega[f] * position;
        const double c = rope.band_scale(f) * std::cos(angle);
        const double s = rope.band_scale(f) * std::sin(angle);
        out[a] = c * x[a] - s * x[b];
        out[b] = s * x[a] + c * x[b];
    }
}

}  // namespace triattn
