#include "key_features.h"

#include <algorithm>
#include <cmath>

namespace triattn {
namespace {

// ln of the norm of a row, kept finite
float log_norm(const float * row, size_t width) {
    double sum = 0;
    for (size_t i = 0; i < width; ++i) {
        sum += static_cast<double>(row[i]) * row[i];
    }
    return static_cast<float>(std::log(std::sqrt(sum) + 1e-6));
}

}  // namespace

size_t n_key_features(int head_dim, int head_dim_v) {
    return 3 + static_cast<size_t>(head_dim) + static_cast<size_t>(head_dim / 2) + static_cast<size_t>(head_dim_v);
}

std::vector<Turn> turns_back(const RopeLayout & rope, const std::vector<Coordinates> & positions) {
    std::vector<Turn> result;
    result.reserve(positions.size() * static_cast<size_t>(rope.n_bands()));
    for (const Coordinates & position : positions) {
        for (int f = 0; f < rope.n_bands(); ++f) {
            const double angle = rope.omega[static_cast<size_t>(f)] * rope.coordinate(f, position),
                         scale = rope.band_scale(f);
            result.push_back({std::cos(angle) / scale, std::sin(angle) / scale});
        }
    }
    return result;
}

std::vector<float> key_features(const RopeLayout & rope, const std::vector<float> & keys,
                                const std::vector<float> & values, const std::vector<Turn> & turns) {
    const auto n_bands = static_cast<size_t>(rope.n_bands());
    const size_t n = turns.size() / n_bands, d = static_cast<size_t>(rope.head_dim);
    const size_t dv = n > 0 ? values.size() / n : 0;
    const size_t width = n_key_features(rope.head_dim, static_cast<int>(dv));
    std::vector<float> result(n * width);
    for (size_t i = 0; i < n; ++i) {
        const float * key = keys.data() + i * d;
        const float * value = values.data() + i * dv;
        float * out = result.data() + i * width;
        float *before = out + 3, *bands = before + d;
        out[0] = 1.0f;
        out[1] = dv > 0 ? log_norm(value, dv) : 0.0f;
        for (size_t f = 0; f < n_bands; ++f) {
            const auto [a, b] = rope.dims(static_cast<int>(f));
            const auto [c, s] = turns[i * n_bands + f];
            const double re = c * key[a] + s * key[b], im = c * key[b] - s * key[a];
            before[a] = static_cast<float>(re);
            before[b] = static_cast<float>(im);
            bands[f] = static_cast<float>(std::sqrt(re * re + im * im));
        }
        out[2] = log_norm(before, d);
        std::copy(value, value + dv, bands + d / 2);
    }
    return result;
}

}  // namespace triattn
