// |k_f|: the length of a key in each of its bands.
#pragma once

#include "rope.h"

#include "ggml.h"

#include <cstdint>

namespace triattn {

// keys: float32 [head_dim*n_head_kv, n] contiguous. Returns float32 [head_dim/2*n_head_kv, n] contiguous, bands in
// order. `rope` must live until the graph has run.

// From operations that every backend has.
ggml_tensor * band_norms(ggml_context * ctx, const RopeLayout & rope, int n_head_kv, ggml_tensor * keys);

// As one function, for keys in host memory: ggml's CPU backend runs the operations above on one thread, and they would
// take more time than all the rest of an eviction.
ggml_tensor * band_norms_on_host(ggml_context * ctx, const RopeLayout & rope, int n_head_kv, ggml_tensor * keys);

}  // namespace triattn
