// Measures the centre and mean magnitude of a model's own queries (before RoPE) on a text.
#pragma once

#include "rope_overrides.h"
#include "stats.h"

#include "llama.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace triattn {

struct CalibrationOptions {
    int32_t n_ctx = 2048;  // the text is read in pieces of this many tokens, each from position 0
    int32_t n_ubatch = 512;
    int32_t n_threads = 1;
    // statistics are of queries before RoPE, so this matters only through what earlier layers attend to
    RopeOverrides rope;
    std::function<void(int64_t done, int64_t total)> progress;  // after each step; may throw
    // Called for each KV head of each layer after each piece: the features of its keys [n_keys, n_key_features], and ln of
    // the most attention that they got when the text was read a second time [n_keys]. None: it is read once.
    std::function<void(size_t layer, size_t kv_head, std::vector<float> features, std::vector<float> targets)> on_keys;
    std::function<bool()> interrupted;  // polled while computing
};

// Reads `tokens` with a context of its own and observes the queries that reach each KV cache with full attention.
// Sums are kept in double. With on_keys each 128 tokens are read once more right after they were read, with 32 before
// them, as if the text repeated itself: what they look for then is what a later reader may (KVzip's idea, arXiv
// 2505.23416, in bounded memory). Layers that read another layer's cache count as more query heads of its owner.
// Throws UnsupportedModelError, InterruptedError, DecodeError, ContextError.
Stats calibrate(llama_model * model, const std::vector<llama_token> & tokens, const CalibrationOptions & options);

}  // namespace triattn
