#include "hadamard.h"

#include <algorithm>
#include <cstddef>

namespace triattn {
namespace {

// n log n additions in place of n² products.
void transform(float * piece, size_t n, float factor) {
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * half) {
            for (size_t i = begin; i < begin + half; ++i) {
                const float a = piece[i], b = piece[i + half];
                piece[i] = a + b;
                piece[i + half] = a - b;
            }
        }
    }
    std::for_each(piece, piece + n, [factor](float & value) { value *= factor; });
}

}  // namespace

bool is_hadamard(const std::vector<float> & matrix, int size) {
    const auto n = static_cast<size_t>(size);
    if (n == 0 || (n & (n - 1)) != 0 || matrix.size() != n * n) {
        return false;
    }
    std::vector<float> expected(n * n, matrix[0]);
    for (size_t half = 1; half < n; half *= 2) {  // [[H, H], [H, -H]]
        for (size_t i = 0; i < half; ++i) {
            for (size_t j = 0; j < half; ++j) {
                const float value = expected[i * n + j];
                expected[i * n + j + half] = expected[(i + half) * n + j] = value;
                expected[(i + half) * n + j + half] = -value;
            }
        }
    }
    return expected == matrix;
}

void apply_hadamard(std::vector<float> & values, const std::vector<float> & matrix, int size) {
    const auto n = static_cast<size_t>(size);
    for (size_t begin = 0; n > 0 && begin < values.size(); begin += n) {
        transform(values.data() + begin, n, matrix[0]);
    }
}

}  // namespace triattn
