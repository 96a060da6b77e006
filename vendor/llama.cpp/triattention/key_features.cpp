#include "key_features.h"

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

std::vector<float> key_features(const RopeLayout & rope, const std::vector<float> & keys,
                                const std::vector<float> & values, const std::vector<int32_t> & positions) {
    return key_features(rope, keys, values, coordinates_of_text(positions));
}

std::vector<float> key_features(const RopeLayout & rope, const std::vector<float> & keys,
                                const std::vector<float> & values, const std::vector<Coordinates> & positions) {
    const size_t n = positions.size(), d = static_cast<size_t>(rope.head_dim);
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
        for (int f = 0; f < rope.n_bands(); ++f) {
            const auto [a, b] = rope.dims(f);
            const double angle = rope.omega[static_cast<size_t>(f)] * rope.coordinate(f, positions[i]),
                         scale = rope.band_scale(f);
            const double c = std::cos(angle) / scale, s = std::sin(angle) / scale;
            const double re = c * key[a] + s * key[b], im = c * key[b] - s * key[a];
            before[a] = static_cast<float>(re);
            before[b] = static_cast<float>(im);
            bands[f] = static_cast<float>(std::sqrt(re * re + im * im));
        }
        out[2] = log_norm(before, d);
        for (size_t j = 0; j < dv; ++j) {
            bands[d / 2 + j] = value[j];
        }
    }
    return result;
}

}  // namespace triattn
