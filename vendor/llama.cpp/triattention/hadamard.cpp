#include "hadamard.h"

#include <algorithm>
#include <cstddef>

namespace triattn {

void apply_hadamard(std::vector<float> & values, const std::vector<float> & matrix, int size) {
    const auto n = static_cast<size_t>(size);
    std::vector<float> piece(n);
    for (size_t begin = 0; size > 0 && begin < values.size(); begin += n) {
        for (size_t i = 0; i < n; ++i) {
            float sum = 0;
            for (size_t j = 0; j < n; ++j) {
                sum += matrix[i * n + j] * values[begin + j];
            }
            piece[i] = sum;
        }
        std::copy(piece.begin(), piece.end(), values.begin() + static_cast<std::ptrdiff_t>(begin));
    }
}

}  // namespace triattn
