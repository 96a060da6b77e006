#include "query_capture.h"

#include "attention_probe.h"
#include "errors.h"

#include "ggml-backend.h"

#include <string>
#include <utility>

namespace triattn {
QueryCapture::QueryCapture(const KvView & view, const std::vector<std::vector<AttentionNode>> & readers) : view_(view) {
    for (const std::vector<AttentionNode> & of_layer : readers) {
        n_readers_.push_back(of_layer.size());
    }
}

QueryCapture::~QueryCapture() {
    if (is_observing_) {
        view_.observe(nullptr, nullptr);
    }
}

void QueryCapture::start(std::vector<int32_t> positions, std::vector<uint8_t> wanted) {
    positions_ = std::move(positions);
    wanted_ = std::move(wanted);
    error_ = nullptr;
    const size_t n_layers = n_readers_.size();
    found_.assign(n_layers, {});
    n_seen_.assign(n_layers, {});
    n_nodes_.assign(n_layers, 0);
    for (size_t l = 0; l < n_layers; ++l) {
        found_[l].resize(n_readers_[l]);
        n_seen_[l].assign(n_readers_[l], 0);
    }
    is_observing_ = true;
    view_.observe(&QueryCapture::callback, this);
}

LayerQueries QueryCapture::stop() {
    is_observing_ = false;
    view_.observe(nullptr, nullptr);
    if (error_) {
        std::rethrow_exception(std::exchange(error_, nullptr));
    }
    return std::move(found_);
}

// ggml_backend_sched_eval_callback; exceptions must not cross the C code, so they wait in error_.
bool QueryCapture::callback(ggml_tensor * node, bool ask, void * data) {
    auto & self = *static_cast<QueryCapture *>(data);
    if (self.error_) {
        return !ask;
    }
    const int layer = self.layer_of(node);
    if (ask) {
        return layer >= 0;
    }
    try {
        self.capture(static_cast<size_t>(layer), node);
    } catch (...) {
        self.error_ = std::current_exception();
        return false;
    }
    return true;
}

int QueryCapture::layer_of(const ggml_tensor * node) const {
    const ggml_tensor * storage = attention_operands(node).storage;
    for (size_t l = 0; storage != nullptr && l < view_.layers().size(); ++l) {
        if (is_or_copies(storage, view_.layers()[l].k)) {
            return static_cast<int>(l);
        }
    }
    return -1;
}

void QueryCapture::capture(size_t layer, const ggml_tensor * node) {
    const KvLayer & of = view_.layers()[layer];
    const ggml_tensor * q = attention_operands(node).queries;
    // a step may be computed in parts: then all readers of a layer come by once for each
    const size_t reader = n_nodes_[layer]++ % n_readers_[layer];
    QuerySet & set = found_[layer][reader];
    size_t & first = n_seen_[layer][reader];
    const auto n_tokens = static_cast<size_t>(q->ne[1]), n_streams = static_cast<size_t>(q->ne[3]);
    const auto d = static_cast<size_t>(of.head_dim_k), n_head = static_cast<size_t>(q->ne[2]);
    if (q->type != GGML_TYPE_F32 || static_cast<size_t>(q->ne[0]) != d || q->nb[0] != sizeof(float) ||
        first + n_tokens * n_streams > positions_.size()) {
        throw UnsupportedModelError("the queries of layer " + std::to_string(of.layer) + " have an unexpected shape");
    }
    std::vector<uint8_t> bytes(ggml_nbytes(q));
    ggml_backend_tensor_get(q, bytes.data(), 0, bytes.size());
    for (size_t i = 0; i < n_tokens * n_streams; ++i, ++first) {
        if (wanted_[first] == 0) {
            continue;
        }
        set.positions.push_back(positions_[first]);
        const uint8_t * token = bytes.data() + i % n_tokens * q->nb[1] + i / n_tokens * q->nb[3];
        for (size_t h = 0; h < n_head; ++h) {
            const auto * row = reinterpret_cast<const float *>(token + h * q->nb[2]);
            set.rows.insert(set.rows.end(), row, row + d);
        }
    }
}

}  // namespace triattn
