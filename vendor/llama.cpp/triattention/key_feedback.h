// Measures what a model's queries look at in its keys, so that keys of the type KV3 are stored with less of the error
// that queries see.
#pragma once

#include "llama.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace triattn {

// Reads a short text in a context that has not read anything, which is empty again afterwards: pieces of it at places
// from 0 to `n_positions`, since RoPE turns what queries look at. Nothing happens if the context has no KV3 keys, or the
// model no vocabulary. Returns llama.cpp's status: 0, or the text could not be read. Throws ContextError.
int32_t feed_back_key_errors(llama_context * ctx, int64_t n_positions);

// The bytes of the feedback of a head (../kv3/kv3.h). squares: [d, d], of which the lower triangle is read: sums over
// queries of the products of two of their values.
std::vector<uint8_t> solve_feedback(std::vector<double> squares, size_t d);

}  // namespace triattn
