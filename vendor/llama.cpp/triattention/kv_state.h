// A sequence's cells and recurrent states as bytes, to go on with later exactly as before.
#pragma once

#include <cstdint>
#include <vector>

struct llama_context;

namespace triattn {

// The context must have one sequence alone. Throws UnsupportedModelError if its memory is of another kind.
std::vector<uint8_t> save_sequence(llama_context * ctx, int32_t seq);

// Puts a saved sequence back into the same cells, in a context of the same model and settings that holds no other
// sequence. New tokens then take the same cells as they would have. Throws DecodeError if the bytes do not fit; the
// sequence is empty then.
void load_sequence(llama_context * ctx, int32_t seq, const std::vector<uint8_t> & bytes);

}  // namespace triattn
