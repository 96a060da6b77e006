// What a context's methods return: plain values with names.
#pragma once

#include "bindings.h"

#include "decoder.h"

namespace pytriattn {

struct TokenLogprob {
    llama_token token;
    float logprob;
};

struct TokenLogprobs {
    float logprob;                  // of the token that was asked for
    std::vector<TokenLogprob> top;  // the likeliest ones, best first
};

struct TokenScores {
    std::vector<float> logprobs;
    std::vector<uint8_t> is_best;
};

struct ContextCounters {
    int64_t n_tokens = 0, n_decoded = 0;
    int64_t cells_allocated = 0, cells_used = 0;
    int64_t k_bytes = 0, v_bytes = 0, sliding_bytes = 0, recurrent_bytes = 0;
    int64_t n_evictions = 0, n_tokens_evicted = 0;
    int64_t n_drafted = 0, n_accepted = 0;
};

struct ContextSeconds { double decoding = 0, scoring = 0, selection = 0, compaction = 0; };

}  // namespace pytriattn
