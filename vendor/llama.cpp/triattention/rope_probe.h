// Reads what RoPE does from the model's own graph, by running the operator that was found there on basis vectors.
#pragma once

#include "rope.h"

struct ggml_tensor;

namespace triattn {

// The RoPE node that a query or key tensor comes from, walking back over operations that do not change directions per
// band; null if there is none (a NoPE layer). Throws UnsupportedModelError at an operation that cannot be seen through.
const ggml_tensor * find_rope(const ggml_tensor * rotated);

// Runs the operator of `node` (null: none) with its own parameters and frequency factors on unit vectors.
// Throws UnsupportedModelError if it is not a rotation of neighbouring or half-split pairs at the front of the head.
RopeLayout probe_rope(const ggml_tensor * node, int head_dim);

}  // namespace triattn
