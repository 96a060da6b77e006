// A sequence's cells and recurrent states as bytes, to go on with later exactly as before.
#pragma once

#include <cstdint>
#include <vector>

struct llama_context;

namespace triattn {

// The context must have one sequence alone. Throws UnsupportedModelError if its memory is of another kind.
std::vector<uint8_t> save_sequence(llama_context * ctx, int32_t seq);

// Puts a saved sequence back into the same cells, in a context of the same model and settings that holds no other
// sequence, and has read `n_positions` tokens. New tokens then take the same cells as they would have. Throws
// DecodeError if the bytes do not fit; then all sequences have to be cleared.
void load_sequence(llama_context * ctx, int32_t seq, const std::vector<uint8_t> & bytes, int64_t n_positions);

// Checks that a second reading can be taken back: in a context of several sequences only where no layer has a sliding window
// or a recurrent state. Throws UnsupportedModelError.
void check_second_reading(bool has_windows_or_states, int32_t n_seq_max);

// What a few more tokens would change for good: sliding windows, recurrent states, and where the next token goes. In a
// context of several sequences only where there are no such parts: throws UnsupportedModelError.
std::vector<uint8_t> save_place(llama_context * ctx, int32_t seq, int32_t n_seq_max);

// Takes positions from `n` on out of a sequence that had n tokens when its place was saved, so that all is as it was.
void go_back(llama_context * ctx, int32_t seq, int32_t n, const std::vector<uint8_t> & place);

}  // namespace triattn
