#include "decoder_params.h"

#include "errors.h"
#include "rereading.h"

#include "llama.h"

#include <algorithm>
#include <limits>

namespace triattn {
namespace {

constexpr int64_t CELL_PADDING = 256;  // llama.cpp rounds a context's cells up to this
constexpr int64_t MAX_POSITIONS = std::numeric_limits<llama_pos>::max() - CELL_PADDING;
constexpr int64_t MAX_CELLS = std::numeric_limits<int32_t>::max();

int64_t pad(int64_t n) { return (n + CELL_PADDING - 1) / CELL_PADDING * CELL_PADDING; }

void check_at_least_one(const char * name, int64_t value) {
    if (value < 1) {
        throw ContextError(std::string(name) + " is " + std::to_string(value) + ", it must be at least 1");
    }
}

}  // namespace

void check(const DecoderParams & params) {
    check_at_least_one("n_ctx", params.n_ctx);
    check_at_least_one("n_batch", params.n_batch);
    check_at_least_one("n_ubatch", params.n_ubatch);
    check_at_least_one("n_seq_max", params.n_seq_max);
    if (params.n_threads < 1 || params.n_threads > GGML_MAX_N_THREADS) {
        throw ContextError("n_threads is " + std::to_string(params.n_threads) + ", it must be from 1 to " +
                           std::to_string(GGML_MAX_N_THREADS));
    }
    if (params.n_ctx > MAX_POSITIONS) {
        throw ContextError("n_ctx is " + std::to_string(params.n_ctx) +
                           ", more than llama.cpp can count: it counts positions up to " +
                           std::to_string(MAX_POSITIONS));
    }
    if (params.eviction) {
        check(*params.eviction);
    }
}

const std::vector<ggml_type> & cache_types() {
    static const std::vector<ggml_type> types = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16,   GGML_TYPE_Q8_0,
                                                 GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_IQ4_NL, GGML_TYPE_Q5_0,
                                                 GGML_TYPE_Q5_1, GGML_TYPE_Q3_K, GGML_TYPE_Q2_K,   GGML_TYPE_KV3};
    return types;
}

ggml_type cache_type_from_name(const std::string & name) {
    std::string known;
    for (ggml_type type : cache_types()) {
        if (name == ggml_type_name(type)) {
            return type;
        }
        known += (known.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    throw ContextError("cache type '" + name + "' is unknown; use one of " + known);
}

CacheSize cache_size(const DecoderParams & params, int32_t n_swa) {
    check(params);
    const int64_t whole = pad(params.n_ctx);
    int64_t cells = whole, chunk = std::min<int64_t>(params.n_batch, whole), batch = chunk;
    if (params.eviction && !params.full_prefill) {
        // Room for a step of prefill beyond the budget: at least an interval, at most a quarter of the budget, so that
        // small budgets are not drowned by large batches.
        const int64_t budget = params.eviction->budget, interval = params.eviction->interval;
        const int64_t room = std::max(interval, std::min<int64_t>(params.n_ubatch, budget / 4));
        cells = std::min(pad(budget + room), whole);
        // where all positions have cells, no step can overflow them
        chunk = std::min<int64_t>({params.n_ubatch, params.n_batch, cells < whole ? cells - budget : cells});
        batch = std::min(std::max(chunk, interval), cells);
    }
    batch = std::max<int64_t>(batch, params.n_seq_max);
    const int64_t ubatch = std::min<int64_t>(params.n_ubatch, batch);
    if (n_swa > 0) {
        // llama.cpp never makes the sliding layers' cache larger than this one, and they need their window and a step
        cells = std::min(std::max(cells, pad(n_swa + ubatch)), whole);
    }
    int64_t reread = 0;
    if (params.eviction && params.eviction->reread) {
        const int64_t step = params.eviction->interval + REREAD_BEFORE;
        reread = pad(step);
        cells += reread;
        batch = std::max(batch, step);
    }
    if (cells > MAX_CELLS / params.n_seq_max) {
        throw ContextError(std::to_string(params.n_seq_max) + " × " + std::to_string(cells) +
                           " cells are more than llama.cpp can count; lower n_ctx or n_seq_max, or set a " +
                           (params.eviction ? "smaller budget" : "budget"));
    }
    const int64_t sliding = n_swa > 0 ? pad(std::min<int64_t>(cells, n_swa + ubatch)) : 0;
    return {static_cast<int32_t>(cells),  static_cast<int32_t>(sliding), static_cast<int32_t>(chunk),
            static_cast<int32_t>(reread), static_cast<int32_t>(batch),   static_cast<int32_t>(ubatch)};
}

void check_learned_positions(int64_t n_ctx, int64_t n_ctx_train, bool has_learned_positions) {
    if (has_learned_positions && n_ctx > n_ctx_train) {
        throw ContextError("this model has learned positions, and only " + std::to_string(n_ctx_train) +
                           " of them; use n_ctx=" + std::to_string(n_ctx_train) + " or less, not " +
                           std::to_string(n_ctx));
    }
}

}  // namespace triattn
