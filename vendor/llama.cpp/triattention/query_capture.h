// Takes the queries of chosen tokens out of a context while it computes.
#pragma once

#include "attention.h"
#include "kv_view.h"

#include <cstdint>
#include <exception>
#include <vector>

namespace triattn {

// Between start() and stop() a context of this view computes node by node where its graph has attention over the
// view's cache; before and after nothing is different.
class QueryCapture {
public:
    // `readers`: the attention operations of a graph that read each layer's cache.
    QueryCapture(const KvView & view, const std::vector<std::vector<AttentionNode>> & readers);
    ~QueryCapture();
    QueryCapture(const QueryCapture &) = delete;
    QueryCapture & operator=(const QueryCapture &) = delete;

    // Observes the next step. `positions` [n_tokens of the step], in the order in which the step computes them;
    // queries of tokens that are not `wanted` are left where they are.
    void start(std::vector<int32_t> positions, std::vector<uint8_t> wanted);

    // The context is gone.
    void abandon() { is_observing_ = false; }

    // Ends observing; what was captured may be nothing if the step failed. Throws UnsupportedModelError.
    LayerQueries stop();

private:
    static bool callback(ggml_tensor * node, bool ask, void * self);
    void capture(size_t layer, const ggml_tensor * node);
    // Index of the layer of the view whose keys this node multiplies, or -1.
    int layer_of(const ggml_tensor * node) const;

    const KvView & view_;
    std::vector<size_t> n_readers_;  // of each layer
    std::vector<int32_t> positions_;
    std::vector<uint8_t> wanted_;
    bool is_observing_ = false;
    LayerQueries found_;
    std::vector<std::vector<size_t>> n_seen_;  // tokens that have gone by: [layer][reader]
    std::vector<size_t> n_nodes_;              // seen of each layer
    std::exception_ptr error_;
};

}  // namespace triattn
