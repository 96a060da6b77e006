// What llama.cpp's SET_ROWS takes with new keys of the type KV3 (../kv3/kv3.h): a tensor for each layer of a cache.
#pragma once

#include <cstddef>
#include <vector>

struct ggml_tensor;
struct llama_context;

namespace triattn {

struct FedBackLayer {
    ggml_tensor * k = nullptr;         // the layer's keys: [head_dim*n_head_kv, n_cells, n_stream]
    ggml_tensor * feedback = nullptr;  // on the device that holds the keys: [kv3_feedback_bytes(head_dim), n_head_kv]
    size_t head_dim = 0;
    size_t n_head_kv = 0;
};

// Gives layers with KV3 keys and values of their own, with full attention or a sliding window, a feedback that changes
// nothing, where their device can use it. It lives as long as the cache. The first call comes before the first step of
// the context, since a graph that has been built is used again as it was. Returns these layers: none where the context
// keeps no such cache. Throws ContextError.
std::vector<FedBackLayer> attach_feedback(llama_context * ctx);

}  // namespace triattn
