#include "attention_probe.h"

#include "errors.h"

#include "ggml.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <string>
#include <utility>

namespace triattn {
namespace {

// The allocated tensor that `tensor` is a view (or a cast) of.
const ggml_tensor * storage_of(const ggml_tensor * tensor) {
    while (tensor != nullptr) {
        if (tensor->view_src != nullptr) {
            tensor = tensor->view_src;
        } else if (tensor->op == GGML_OP_CPY || tensor->op == GGML_OP_CONT) {
            tensor = tensor->src[0];
        } else {
            break;
        }
    }
    return tensor;
}

std::optional<AttentionFunction> function_of(const ggml_tensor * node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
        return std::nullopt;
    }
    const auto * params = reinterpret_cast<const float *>(node->op_params);  // scale, ALiBi's bias, softcap
    return AttentionFunction{params[0], params[2], node->src[4]};
}

// The layer in llama.cpp's names of nodes: "kqv_out-7", "Vcur-7 (view)"; -1 if the name has none.
int layer_in_name(const char * name) {
    const std::string text(name);
    const size_t end = text.find(" (");
    const std::string stem = text.substr(0, end);
    const size_t dash = stem.rfind('-');
    if (dash == std::string::npos || dash + 1 == stem.size() ||
        !std::all_of(stem.begin() + static_cast<std::ptrdiff_t>(dash) + 1, stem.end(),
                     [](unsigned char c) { return std::isdigit(c); })) {
        return -1;
    }
    return std::atoi(stem.c_str() + dash + 1);
}

struct Cache {
    const KvLayer * layer = nullptr;
    bool sliding = false;
    bool found = false;  // the node that writes its keys
    RopeTrace keys;
    std::optional<std::vector<float>> weights;  // of the queries that have read it
};

class GraphReader {
public:
    explicit GraphReader(const KvView & view) : graph_(view.build_graph()) {
        for (const KvLayer & layer : view.layers()) {
            caches_[layer.k].layer = &layer;
        }
        for (const KvLayer & layer : view.sliding_layers()) {
            caches_[layer.k].layer = &layer;
            caches_[layer.k].sliding = true;
        }
    }

    std::vector<AttentionNode> run() {
        std::vector<AttentionNode> result;
        for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
            const ggml_tensor * node = ggml_graph_node(graph_, i);
            if (node->op == GGML_OP_SET_ROWS) {
                read_keys(node);
            } else if (const AttentionOperands operands = attention_operands(node);
                       caches_.count(operands.storage) > 0) {
                result.push_back(read_attention(operands, i));
                Cache & cache = caches_.at(operands.storage);
                cache.weights = cache.weights.value_or(result.back().weights);
                if (*cache.weights != result.back().weights) {
                    throw UnsupportedModelError("layers that share the cache of layer " +
                                                std::to_string(result.back().owner) +
                                                " have other weights after RoPE; load the model with budget=None");
                }
            }
        }
        return result;
    }

private:
    // llama.cpp writes new keys into the cache
    void read_keys(const ggml_tensor * node) {
        const auto found = caches_.find(storage_of(node));
        if (found == caches_.end()) {
            return;
        }
        Cache & cache = found->second;
        cache.keys = trace_rope(node->src[0], cache.layer->head_dim_k);
        cache.found = true;
    }

    AttentionNode read_attention(const AttentionOperands & operands, int index) {
        const Cache & cache = caches_.at(operands.storage);
        AttentionNode result;
        result.owner = cache.layer->layer;
        result.layer = layer_after(index);
        result.sliding = cache.sliding;
        result.n_head_kv = cache.layer->n_head_kv;
        result.head_dim_v = cache.layer->head_dim_v;
        result.n_head = static_cast<int>(operands.queries->ne[2]);
        const RopeTrace queries = trace_rope(operands.queries, cache.layer->head_dim_k);
        if (!cache.found || !(cache.keys.op == queries.op) || cache.keys.hadamard != queries.hadamard) {
            throw UnsupportedModelError("layer " + std::to_string(result.layer) +
                                        " rotates its queries otherwise than the keys in its cache; "
                                        "load the model with budget=None");
        }
        result.op = queries.op;
        result.weights = queries.weights;
        result.hadamard = queries.hadamard;
        result.rope = probe(result.op, cache.layer->head_dim_k);
        result.function = function_of(ggml_graph_node(graph_, index));
        return result;
    }

    // the first name with a layer in it after an attention node is still of that layer
    int layer_after(int index) const {
        for (int i = index; i < ggml_graph_n_nodes(graph_); ++i) {
            const int layer = layer_in_name(ggml_graph_node(graph_, i)->name);
            if (layer >= 0) {
                return layer;
            }
        }
        return -1;
    }

    // most layers have the same operator
    const RopeLayout & probe(const std::optional<RopeOperator> & op, int head_dim) {
        for (const auto & [known, layout] : probed_) {
            if (known == op && layout.head_dim == head_dim) {
                return layout;
            }
        }
        probed_.emplace_back(op, probe_rope(op, head_dim));
        return probed_.back().second;
    }

    ggml_cgraph * graph_;
    std::map<const ggml_tensor *, Cache> caches_;
    std::vector<std::pair<std::optional<RopeOperator>, RopeLayout>> probed_;
};

}  // namespace

AttentionOperands attention_operands(const ggml_tensor * node) {
    if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        return {storage_of(node->src[1]), node->src[0]};
    }
    // in latent attention values are a part of the keys: their product with the softmax is none of ours
    if (node->op == GGML_OP_MUL_MAT && node->src[1]->op != GGML_OP_SOFT_MAX) {
        return {storage_of(node->src[0]), node->src[1]};
    }
    return {};
}

bool is_or_copies(const ggml_tensor * tensor, const ggml_tensor * storage) {
    if (tensor == storage || tensor == nullptr || tensor->op != GGML_OP_NONE) {
        return tensor == storage;
    }
    // ggml's scheduler calls the copy BACKEND#name of the view#number
    const char * original = std::strchr(tensor->name, '#');
    const size_t length = std::strlen(storage->name);
    return original != nullptr && std::strncmp(original + 1, storage->name, length) == 0 &&
           (original[1 + length] == '#' || original[1 + length] == ' ');
}

std::vector<AttentionNode> probe_attention(const KvView & view) { return GraphReader(view).run(); }

std::vector<std::vector<AttentionNode>> readers_of(const KvView & view, const std::vector<AttentionNode> & nodes) {
    std::vector<std::vector<AttentionNode>> result;
    for (const KvLayer & layer : view.layers()) {
        result.emplace_back();
        std::copy_if(nodes.begin(), nodes.end(), std::back_inserter(result.back()),
                     [&](const AttentionNode & node) { return node.owner == layer.layer && !node.sliding; });
        if (result.back().empty()) {
            throw UnsupportedModelError("no attention was found over the cache of layer " +
                                        std::to_string(layer.layer) + "; load the model with budget=None");
        }
    }
    return result;
}

std::vector<uint8_t> probe_hadamard(const KvView & view) {
    std::vector<uint8_t> result(view.layers().size(), 0);
    if (view.k_rotation_size() == 0) {
        return result;
    }
    const std::vector<AttentionNode> nodes = probe_attention(view);
    for (size_t i = 0; i < result.size(); ++i) {
        result[i] = std::any_of(nodes.begin(), nodes.end(), [&](const AttentionNode & node) {
            return !node.sliding && node.owner == view.layers()[i].layer && node.hadamard;
        });
    }
    return result;
}

void check_images(const KvView & view) {
    constexpr size_t MODE = 2, FOURTH_SECTION = 14;  // ggml's places for the parameters of GGML_OP_ROPE
    for (const AttentionNode & node : probe_attention(view)) {
        const bool has_sections = node.op && (node.op->params[MODE] & GGML_ROPE_TYPE_MROPE) != 0;
        if (has_sections && node.op->params[FOURTH_SECTION] != 0) {
            throw UnsupportedModelError(
                "images of this model have a fourth coordinate, which the cache does not keep, so their keys cannot be "
                "scored; load it without an encoder of images (mmproj), or without a budget");
        }
    }
}

}  // namespace triattn
