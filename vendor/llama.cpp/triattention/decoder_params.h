// What a context is made with, and how large its caches become.
#pragma once

#include "eviction_config.h"
#include "flash_attention.h"
#include "rope_overrides.h"

#include "ggml.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace triattn {

struct DecoderParams {
    int64_t n_ctx = 0;  // largest number of positions per sequence; not an allocation when there is a budget
    int32_t n_batch = 2048;
    int32_t n_ubatch = 512;
    int32_t n_threads = 1;
    int32_t n_seq_max = 1;
    bool kv_unified = false;  // sequences share one pool of cells, else each has its own
    ggml_type type_k = GGML_TYPE_F16;
    ggml_type type_v = GGML_TYPE_F16;
    FlashAttention flash_attn = FlashAttention::automatic;
    RopeOverrides rope;
    std::optional<EvictionConfig> eviction;
    bool full_prefill = false;          // read a prompt in full, then prune once; else prune while reading
    int32_t n_draft = 0;                // the most tokens that a step computes ahead; 0: none ever
    std::function<bool()> interrupted;  // polled while computing
};

// Throws ContextError or BudgetError naming a value that makes no sense for any model.
void check(const DecoderParams & params);

// The types that llama.cpp's own tools accept for a cache; ggml has their names. Values of quantised ones need flash
// attention.
const std::vector<ggml_type> & cache_types();

// Throws ContextError for a name that is none of them.
ggml_type cache_type_from_name(const std::string & name);

// What a sequence's cache needs, and how much of a prompt may be read at once without exceeding it.
struct CacheSize {
    int32_t n_cells;          // per sequence, of layers with full attention; a multiple of 256
    int32_t n_cells_sliding;  // the same of layers with a sliding window; 0: none
    int32_t chunk;            // tokens of a prompt in one step
    int32_t n_reread;         // of n_cells, those that only a second reading takes
    int32_t n_batch;          // the largest step of any kind
    int32_t n_ubatch;
};

// `n_swa`: the model's sliding window, 0 if it has none. Throws ContextError if the cells cannot be counted.
CacheSize cache_size(const DecoderParams & params, int32_t n_swa);

// A table of learned positions in place of RoPE ends: llama.cpp ends the process at a position beyond it. Throws
// ContextError where `n_ctx` positions are more than the `n_ctx_train` of such a model.
void check_learned_positions(int64_t n_ctx, int64_t n_ctx_train, bool has_learned_positions);

}  // namespace triattn
