// What a context's attention does with positions: for every layer, which cache its queries meet and how RoPE turns
// them.
#pragma once

#include "kv_view.h"
#include "rope_probe.h"

#include <cstdint>
#include <optional>
#include <vector>

struct ggml_tensor;

namespace triattn {

// What an attention operation does with the products of queries and keys.
struct AttentionFunction {
    float scale = 1.0f;
    float softcap = 0.0f;                 // s = softcap * tanh(s / softcap); 0: none
    const ggml_tensor * sinks = nullptr;  // a logit for each query head that takes its share of the sum; null: none
};

// One attention operation of the graph.
struct AttentionNode {
    int layer = 0;         // whose queries these are
    int owner = 0;         // whose cached keys they meet: another layer's if it has none of its own
    bool sliding = false;  // a sliding window: left alone
    int n_head = 0;
    int n_head_kv = 0;
    int head_dim_v = 0;                         // 0: values are a part of the keys
    RopeLayout rope;                            // of queries and keys
    std::optional<RopeOperator> op;             // none: a layer without RoPE
    std::vector<float> weights;                 // [head_dim], multiplies the queries after RoPE; empty: none does
    std::optional<AttentionFunction> function;  // none: it is not flash attention
    bool hadamard = false;                      // the cached keys are multiplied by KvView::k_rotation()
};

// Reads them from the graph that the context itself would run, without running it; in the order of computation. Throws
// UnsupportedModelError if a layer's queries and cached keys are not rotated alike, or by something that is not RoPE.
std::vector<AttentionNode> probe_attention(const KvView & view);

// Throws UnsupportedModelError if a model's images have coordinates that its cache does not tell: a fourth one.
void check_images(const KvView & view);

// The nodes that read the cache of each of the view's layers. Throws UnsupportedModelError if a layer has none.
std::vector<std::vector<AttentionNode>> readers_of(const KvView & view, const std::vector<AttentionNode> & nodes);

// AttentionNode::hadamard for each of the view's layers. The graph is looked at only if the cache has such a matrix.
std::vector<uint8_t> probe_hadamard(const KvView & view);

// The cached keys' storage that an operation multiplies with queries, and these queries; nulls if it is no attention
// over a cache.
struct AttentionOperands {
    const ggml_tensor * storage = nullptr;
    const ggml_tensor * queries = nullptr;
};
AttentionOperands attention_operands(const ggml_tensor * node);

// Whether a tensor found as `storage` in a graph that runs is this one, or the copy of it that another device is given
// to read.
bool is_or_copies(const ggml_tensor * tensor, const ggml_tensor * storage);

}  // namespace triattn
