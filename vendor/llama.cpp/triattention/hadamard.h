// The matrix that llama.cpp multiplies pieces of a quantised cache's rows by (KvView::k_rotation).
#pragma once

#include <vector>

namespace triattn {

// Multiplies consecutive pieces of `values` by a symmetric orthonormal matrix [size, size]: once more undoes the first
// time. Nothing happens where size is 0.
void apply_hadamard(std::vector<float> & values, const std::vector<float> & matrix, int size);

}  // namespace triattn
