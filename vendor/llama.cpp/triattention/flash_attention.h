// Whether a context uses flash attention.
#pragma once

#include "llama.h"

namespace triattn {

enum class FlashAttention { automatic, on, off };

// What to ask of llama.cpp for this model. Throws ContextError if `on` would make it abort the process.
llama_flash_attn_type flash_attention_for(const llama_model * model, FlashAttention setting);

}  // namespace triattn
