// Whether the devices that would hold a cache can store rows of its types: llama.cpp asks only when it is too late.
#pragma once

#include "ggml-backend.h"
#include "ggml.h"

#include <vector>

namespace triattn {

// Whether `device` can write rows of `type` where a cache of this type lies on it. A server's devices claim that they
// can (ggml does not ask the server).
bool can_store(ggml_backend_dev_t device, ggml_type type);

// Whether rows of the type KV3 that lie in this buffer can be stored with their errors fed back: processors can, and a
// server decides by itself.
bool feeds_back_errors(ggml_backend_buffer_type_t type);

// Throws ContextError, which names the device and the types that it can store, if one of them cannot store a type.
void check_cache_devices(const std::vector<ggml_backend_dev_t> & devices, ggml_type type_k, ggml_type type_v);

}  // namespace triattn
