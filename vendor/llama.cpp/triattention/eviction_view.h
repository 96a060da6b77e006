// What a sequence's cache holds when keys are to be chosen, for those who choose by other means than our scores.
#pragma once

#include "kv_view.h"
#include "origin_map.h"
#include "selector.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace triattn {

// Refers to the cache, and is valid until that changes. "Keys" are those of the sequence's cells, by ascending position
// of the cell; layers are the full-attention layers of the model, in its order.
class EvictionView {
public:
    // What the view is of, beside the cache. `origins` may be null where nothing was ever evicted.
    struct Subject {
        int32_t seq = 0;
        std::vector<KvCell> cells;          // by ascending position
        std::vector<uint8_t> is_protected;  // [n_keys]
        size_t n_keep = 0;
        std::vector<uint8_t> has_hadamard;  // [n_layers]; see AttentionNode::hadamard
        const OriginMap * origins = nullptr;
    };
    EvictionView(const KvView & cache, Subject subject) : cache_(&cache), subject_(std::move(subject)) {}

    int32_t seq() const { return subject_.seq; }
    int32_t position() const { return next_position(subject_.cells); }  // of the next token
    size_t n_keys() const { return subject_.cells.size(); }
    size_t n_keep() const { return subject_.n_keep; }  // what every head is to keep, protected keys among them
    const std::vector<KvCell> & cells() const { return subject_.cells; }
    const std::vector<uint8_t> & is_protected() const { return subject_.is_protected; }  // [n_keys]
    const std::vector<KvLayer> & layers() const { return cache_->layers(); }

    // Keys after RoPE, [n_head_kv, n_keys, head_dim_k], and values, [n_head_kv, n_keys, head_dim_v] (empty where they
    // are a part of the keys). What llama.cpp multiplies them by in a quantised cache has been undone.
    std::vector<float> keys(size_t layer) const;
    std::vector<float> values(size_t layer) const;

    // The positions of the tokens that the keys of each head come from: [n_head_kv, n_keys]. After an eviction those of
    // the cells are labels, and heads differ.
    std::vector<int32_t> origins(size_t layer) const;

private:
    const KvView * cache_;
    Subject subject_;
};

// Checks that every head keeps view.n_keep() keys, and all that are protected. Throws BudgetError naming layer and
// head, what was expected and what came.
void check_choice(const Kept & kept, const EvictionView & view);

}  // namespace triattn
