#include "rope.h"

#include "errors.h"

#include <cmath>
#include <string>

namespace triattn {

std::vector<Coordinates> coordinates_of_text(const std::vector<int32_t> & positions) {
    std::vector<Coordinates> all;
    for (const int32_t position : positions) {
        all.push_back({position, position, position});
    }
    return all;
}

std::vector<RopeLayout::Part> RopeLayout::parts() const {
    std::vector<Part> result;
    for (const Part & part :
         {Part{0, rot_begin}, Part{rot_begin, n_rot}, Part{rot_begin + n_rot, head_dim - rot_begin - n_rot}}) {
        if (part.size > 0) {
            result.push_back(part);
        }
    }
    return result;
}

std::pair<int, int> RopeLayout::dims(int band) const {
    if (interleaved) {
        return {2 * band, 2 * band + 1};
    }
    const int first = 2 * band < rot_begin ? 0 : 2 * band < rot_begin + n_rot ? rot_begin : rot_begin + n_rot;
    const int size = 2 * band < rot_begin           ? rot_begin
                     : 2 * band < rot_begin + n_rot ? n_rot
                                                    : head_dim - rot_begin - n_rot;
    const int a = first + band - first / 2;
    return {a, a + size / 2};
}

bool RopeLayout::same_bands(const RopeLayout & other) const {
    // without rotation there is nothing that pairs dimensions but a convention
    return head_dim == other.head_dim && rot_begin == other.rot_begin && n_rot == other.n_rot &&
           interleaved == other.interleaved;
}

void check(const RopeLayout & rope) {
    if (rope.head_dim <= 0 || rope.head_dim % 2 != 0) {
        throw StatsError("head_dim is " + std::to_string(rope.head_dim) + ", it must be a positive even number");
    }
    if (rope.n_rot < 0 || rope.n_rot > rope.head_dim || rope.n_rot % 2 != 0) {
        throw StatsError("n_rot " + std::to_string(rope.n_rot) + " does not fit a head of " +
                         std::to_string(rope.head_dim));
    }
    if (rope.rot_begin < 0 || rope.rot_begin > rope.head_dim - rope.n_rot || rope.rot_begin % 2 != 0) {
        throw StatsError("rotation from dimension " + std::to_string(rope.rot_begin) + " on does not fit a head of " +
                         std::to_string(rope.head_dim));
    }
    if (static_cast<int>(rope.omega.size()) != rope.n_bands()) {
        throw StatsError("expected " + std::to_string(rope.n_bands()) + " band frequencies, got " +
                         std::to_string(rope.omega.size()));
    }
    if (!(rope.scale > 0) || !std::isfinite(rope.scale)) {
        throw StatsError("scale is " + std::to_string(rope.scale) + ", it must be positive");
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
