#include "attention_spread.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace triattn {

std::vector<float> spread_attention(const float * values, const std::vector<int32_t> & positions, int32_t back,
                                    int32_t forward) {
    const size_t n = positions.size();
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return positions[a] < positions[b]; });
    std::vector<float> result(n, 0.0f);
    for (size_t i = 0; i < n; ++i) {
        const int32_t p = positions[order[i]];
        float best = 0;
        // tokens of an image share a position and are no neighbours
        for (size_t j = i; j < n && positions[order[j]] <= p + back; ++j) {
            best = j == i || positions[order[j]] != p ? std::max(best, values[order[j]]) : best;
        }
        for (size_t j = i; j-- > 0 && positions[order[j]] >= p - forward;) {
            best = positions[order[j]] != p ? std::max(best, values[order[j]]) : best;
        }
        result[order[i]] = best;
    }
    return result;
}

}  // namespace triattn
