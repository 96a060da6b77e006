// A user's own RoPE settings.
#pragma once

#include "llama.h"

#include <cstdint>

namespace triattn {

// What a user sets in place of the model's own RoPE settings; each default means "the model's own". See
// llama_context_params.
struct RopeOverrides {
    llama_rope_scaling_type scaling = LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED;
    float freq_base = 0, freq_scale = 0;
    float yarn_ext_factor = -1, yarn_attn_factor = -1, yarn_beta_fast = -1, yarn_beta_slow = -1;
    uint32_t yarn_orig_ctx = 0;
};

inline void apply(const RopeOverrides & rope, llama_context_params & params) {
    params.rope_scaling_type = rope.scaling;
    params.rope_freq_base = rope.freq_base;
    params.rope_freq_scale = rope.freq_scale;
    params.yarn_ext_factor = rope.yarn_ext_factor;
    params.yarn_attn_factor = rope.yarn_attn_factor;
    params.yarn_beta_fast = rope.yarn_beta_fast;
    params.yarn_beta_slow = rope.yarn_beta_slow;
    params.yarn_orig_ctx = rope.yarn_orig_ctx;
}

}  // namespace triattn
