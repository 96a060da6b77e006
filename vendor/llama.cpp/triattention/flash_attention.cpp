#include "flash_attention.h"

#include "errors.h"

#include <string>

namespace triattn {

llama_flash_attn_type flash_attention_for(const llama_model * model, FlashAttention setting) {
    char architecture[64] = "";
    llama_model_meta_val_str(model, "general.architecture", architecture, sizeof architecture);
    // llama.cpp's graph for PLM hands over values in a shape that only the cache without flash attention takes: an
    // assertion fails
    const bool aborts = std::string(architecture) == "plm";
    if (aborts && setting == FlashAttention::on) {
        throw ContextError(
            "llama.cpp cannot run models of architecture plm with flash attention; use flash_attn='auto' or False");
    }
    if (aborts || setting == FlashAttention::off) {
        return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    return setting == FlashAttention::on ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
}

}  // namespace triattn
