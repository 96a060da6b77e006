// How much attention cached keys get from given queries, computed on the devices that hold the keys.
#pragma once

#include "attention_probe.h"
#include "device_graph.h"
#include "kv_view.h"

#include <cstdint>
#include <vector>

namespace triattn {

// Queries of some tokens at one attention operation, as they meet the cached keys: after RoPE, and multiplied by the
// cache's Hadamard matrix where that has one.
struct QuerySet {
    std::vector<int32_t> positions;  // [n_tokens]
    std::vector<float> rows;         // [n_tokens, n_head, head_dim]
};

// The query sets that read the cache of each layer of a view: [layer][operation]. Layers without keys of their own read
// another layer's, so there can be several.
using LayerQueries = std::vector<std::vector<QuerySet>>;

// What queries are multiplied by: the cache as it lies, or a float32 copy of its rows, where a device cannot multiply by
// the cache's type or by heads whose rows do not lie side by side.
enum class KeySource { cache, rows };

// What the devices that hold the cache need.
KeySource key_source(DeviceGraph & graph, const KvView & view);

// The most attention that each key gets from any of the queries of any query head of its KV head: softmax over the
// cells whose position is not above that of the query. `readers` are the operations that the sets are of, layer by layer
// of the view. The queries of all layers are of the same tokens, but layers may have no sets. Returns for each layer
// [n_head_kv, n_cells of `cells`]; zeros where there are no queries.
std::vector<std::vector<float>> most_attention(DeviceGraph & graph, const KvView & view, uint32_t stream,
                                               const std::vector<KvCell> & cells,
                                               const std::vector<std::vector<AttentionNode>> & readers,
                                               const LayerQueries & queries, KeySource source);

// The operations of most_attention that a device lacks, as DeviceGraph has it.
std::vector<std::string> missing_attention(DeviceGraph & graph, const KvView & view, KeySource source,
                                           ggml_backend_dev_t device);

}  // namespace triattn
