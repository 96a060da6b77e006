#include "kv_parts.h"

#include "errors.h"

#include <typeinfo>

namespace triattn {

KvParts find_parts(llama_context * ctx) {
    llama_memory_i * memory = llama_get_memory(ctx);
    if (auto * wrapped = dynamic_cast<WrappedMemory *>(memory)) {
        memory = wrapped->inner();
    }
    // Exact classes only: a class that merely derives from one of these may keep more state than we move.
    if (memory != nullptr) {
        const auto & type = typeid(*memory);
        if (type == typeid(llama_kv_cache)) {
            return {static_cast<llama_kv_cache *>(memory), nullptr, nullptr};
        }
        if (type == typeid(llama_kv_cache_iswa)) {
            auto * iswa = static_cast<llama_kv_cache_iswa *>(memory);
            return {iswa->get_base(), iswa->get_swa(), nullptr};
        }
        if (type == typeid(llama_memory_hybrid)) {
            auto * hybrid = static_cast<llama_memory_hybrid *>(memory);
            return {hybrid->get_mem_attn(), nullptr, hybrid->get_mem_recr()};
        }
        if (type == typeid(llama_memory_hybrid_iswa)) {
            auto * hybrid = static_cast<llama_memory_hybrid_iswa *>(memory);
            return {hybrid->get_mem_attn()->get_base(), hybrid->get_mem_attn()->get_swa(), hybrid->get_mem_recr()};
        }
    }
    throw UnsupportedModelError(
        memory == nullptr
            ? "this model keeps no KV cache; load it with budget=None"
            : "this model's cache is neither a plain, a sliding-window nor a hybrid KV cache, so nothing can be "
              "evicted from it; load it with budget=None");
}

}  // namespace triattn
