// The matrix that llama.cpp multiplies pieces of a quantised cache's rows by (KvView::k_rotation).
#pragma once

#include <vector>

namespace triattn {

// Whether a matrix [size, size] is Sylvester's: entries of one size, with the signs of [[H, H], [H, -H]].
bool is_hadamard(const std::vector<float> & matrix, int size);

// Multiplies consecutive pieces of `values` by such a matrix: once more undoes the first time. Nothing happens where size is 0.
void apply_hadamard(std::vector<float> & values, const std::vector<float> & matrix, int size);

}  // namespace triattn
