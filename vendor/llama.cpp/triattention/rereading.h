// Reading the newest tokens once more before an eviction: EvictionConfig::reread.
#pragma once

#include "controller.h"

#include "llama.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace triattn {

// Tokens before an interval that are read again with it. Calibration reads READ_AGAIN_BEFORE again; here more than these
// cost time and help nothing (docs/quality.md).
constexpr int32_t REREAD_BEFORE = 8;

// Appends a token to the newest ones of a sequence, of which no more are kept than are read again.
void remember(std::vector<llama_token> & recent, llama_token token);

// Reads what is new in a sequence since its last eviction once more, right behind its `n_past` positions, and tells the
// controller what that looked for. Nothing of it stays in the cache; the context's logits are those of the second reading.
// `recent`: the newest tokens; what is older is left out. `check` is called after each step. Throws DecodeError.
void read_once_more(llama_context * ctx, Controller & controller, int32_t seq, const std::vector<llama_token> & recent,
                    int64_t n_past, int32_t n_seq_max, const std::function<void()> & check);

}  // namespace triattn
