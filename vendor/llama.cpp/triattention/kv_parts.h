// A context's memory taken apart. Private headers of the pinned llama.cpp: the kv_*.cpp files alone include this.
#pragma once

#include "llama.h"
// private headers of the pinned llama.cpp
#include "llama-context.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"

namespace triattn {

struct KvParts {
    llama_kv_cache * full = nullptr;
    llama_kv_cache * sliding = nullptr;
    llama_memory_recurrent * recurrent = nullptr;
};

// A memory that hands on to another one what it is asked.
class WrappedMemory {
public:
    virtual ~WrappedMemory() = default;
    virtual llama_memory_i * inner() = 0;
};

// Throws UnsupportedModelError if the context has no KV cache or one of another kind.
KvParts find_parts(llama_context * ctx);

}  // namespace triattn
