#include "key_rows.h"

#include "hadamard.h"

#include <utility>

namespace triattn {
namespace {

constexpr size_t TENSORS_PER_LAYER = 8;

// The rows of these cells, of all heads: [n, n_head_kv*width] float32.
ggml_tensor * build_rows(ggml_context * ctx, ggml_tensor * storage, uint32_t stream, ggml_tensor * index) {
    ggml_tensor * rows =
        ggml_view_2d(ctx, storage, storage->ne[0], storage->ne[1], storage->nb[1], stream * storage->nb[2]);
    return ggml_get_rows(ctx, rows, index);
}

std::vector<std::vector<float>> by_head(const ggml_tensor * rows, size_t n_head_kv, size_t width) {
    const size_t n = static_cast<size_t>(rows->ne[1]), row = static_cast<size_t>(rows->ne[0]);
    std::vector<float> all(n * row);
    ggml_backend_tensor_get(rows, all.data(), 0, ggml_nbytes(rows));
    std::vector<std::vector<float>> result(n_head_kv);
    for (size_t head = 0; head < n_head_kv; ++head) {
        result[head].reserve(n * width);
        for (size_t i = 0; i < n; ++i) {
            const float * from = all.data() + i * row + head * width;
            result[head].insert(result[head].end(), from, from + width);
        }
    }
    return result;
}

// The rows of these cells in each layer: keys, and values or null.
std::vector<std::pair<ggml_tensor *, ggml_tensor *>> build(DeviceGraph & graph, const KvView & view, uint32_t stream,
                                                           const std::vector<int32_t> & slots) {
    ggml_context * ctx = graph.begin(TENSORS_PER_LAYER * view.layers().size() + 4);
    ggml_tensor * index = graph.input(slots.data(), GGML_TYPE_I32, static_cast<int64_t>(slots.size()));
    std::vector<std::pair<ggml_tensor *, ggml_tensor *>> rows;
    for (const KvLayer & layer : view.layers()) {
        rows.emplace_back(build_rows(ctx, layer.k, stream, index), nullptr);
        graph.expand(rows.back().first, /*output*/ true, layer.k);
        if (layer.v != nullptr) {
            rows.back().second = build_rows(ctx, layer.v, stream, index);
            graph.expand(rows.back().second, /*output*/ true, layer.v);
        }
    }
    return rows;
}

}  // namespace

std::vector<std::string> missing_key_rows(DeviceGraph & graph, const KvView & view, ggml_backend_dev_t device) {
    build(graph, view, 0, {0, 1});
    return graph.missing_operations(device);
}

std::vector<KeyRows> read_key_rows(DeviceGraph & graph, const KvView & view,
                                   const std::vector<std::vector<AttentionNode>> & readers, uint32_t stream,
                                   const std::vector<KvCell> & cells) {
    std::vector<int32_t> slots;
    for (const KvCell & cell : cells) {
        slots.push_back(static_cast<int32_t>(cell.slot));
    }
    const std::vector<std::pair<ggml_tensor *, ggml_tensor *>> rows = build(graph, view, stream, slots);
    graph.run();
    std::vector<KeyRows> result;
    for (size_t l = 0; l < rows.size(); ++l) {
        const KvLayer & layer = view.layers()[l];
        const auto n_head_kv = static_cast<size_t>(layer.n_head_kv);
        KeyRows found{by_head(rows[l].first, n_head_kv, static_cast<size_t>(layer.head_dim_k)),
                      std::vector<std::vector<float>>(n_head_kv)};
        if (rows[l].second != nullptr) {
            found.values = by_head(rows[l].second, n_head_kv, static_cast<size_t>(layer.head_dim_v));
        }
        for (size_t head = 0; head < n_head_kv; ++head) {
            if (readers[l].front().hadamard) {
                apply_hadamard(found.keys[head], view.k_rotation(), view.k_rotation_size());
            }
            apply_hadamard(found.values[head], view.v_rotation(), view.v_rotation_size());
        }
        result.push_back(std::move(found));
    }
    return result;
}

}  // namespace triattn
