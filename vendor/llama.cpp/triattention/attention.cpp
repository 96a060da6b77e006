#include "attention.h"

#include "errors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

namespace triattn {
namespace {

constexpr size_t TENSORS_PER_SET = 16;

// [n_head, n_tokens, head_dim]: the queries of one head side by side.
std::vector<float> by_head(const QuerySet & queries, size_t n_head, size_t head_dim) {
    const size_t n_tokens = queries.positions.size();
    std::vector<float> result(queries.rows.size());
    for (size_t t = 0; t < n_tokens; ++t) {
        for (size_t h = 0; h < n_head; ++h) {
            const float * from = queries.rows.data() + (t * n_head + h) * head_dim;
            std::copy(from, from + head_dim, result.data() + (h * n_tokens + t) * head_dim);
        }
    }
    return result;
}

// [n_tokens, n_cells of the stream]: 0 where the query sees the cell.
std::vector<float> causal_mask(const KvView & view, const std::vector<KvCell> & cells,
                               const std::vector<int32_t> & positions) {
    const size_t n_cells = view.n_cells();
    std::vector<float> mask(positions.size() * n_cells, -std::numeric_limits<float>::infinity());
    for (size_t t = 0; t < positions.size(); ++t) {
        for (const KvCell & cell : cells) {
            if (cell.pos <= positions[t]) {
                mask[t * n_cells + cell.slot] = 0.0f;
            }
        }
    }
    return mask;
}

// The numbers of all cells, to copy their rows by; null if they are not copied.
ggml_tensor * build_index(DeviceGraph & graph, const KvView & view, KeySource source) {
    if (source == KeySource::cache) {
        return nullptr;
    }
    std::vector<int32_t> slots(view.n_cells());
    std::iota(slots.begin(), slots.end(), 0);
    return graph.input(slots.data(), GGML_TYPE_I32, static_cast<int64_t>(slots.size()));
}

// The keys of all cells of the stream, head by head: [head_dim, n_cells, n_head_kv].
ggml_tensor * build_keys(ggml_context * ctx, const KvLayer & layer, int64_t n_cells, uint32_t stream,
                         ggml_tensor * index) {
    ggml_tensor * rows = layer.k;
    size_t offset = stream * layer.k->nb[2];
    if (index != nullptr) {
        rows = ggml_get_rows(ctx, ggml_view_2d(ctx, rows, rows->ne[0], rows->ne[1], rows->nb[1], offset), index);
        offset = 0;
    }
    const int64_t d = layer.head_dim_k;
    return ggml_view_3d(ctx, rows, d, n_cells, layer.n_head_kv, rows->nb[1], ggml_row_size(rows->type, d), offset);
}

// The softmax [n_cells, n_tokens, n_head] over all cells of the stream. mask: [n_cells, n_tokens]; index: build_index.
ggml_tensor * build_attention(ggml_context * ctx, DeviceGraph & graph, const KvView & view, const KvLayer & layer,
                              uint32_t stream, ggml_tensor * index, ggml_tensor * mask, const AttentionNode & reader,
                              const QuerySet & queries) {
    const int64_t n_cells = view.n_cells(), n_tokens = static_cast<int64_t>(queries.positions.size());
    const int64_t d = layer.head_dim_k, n_head = reader.n_head, n_head_kv = layer.n_head_kv;
    if (!reader.function) {
        throw UnsupportedModelError("the attention of layer " + std::to_string(reader.layer) +
                                    " is not flash attention, so it cannot be computed again; use flash_attn=True, or "
                                    "mode='per_layer_head'");
    }
    const AttentionFunction & function = *reader.function;
    ggml_tensor * keys = build_keys(ctx, layer, n_cells, stream, index);
    // the query heads of a KV head are columns of one product
    ggml_tensor * columns = graph.input_f32(by_head(queries, static_cast<size_t>(n_head), static_cast<size_t>(d)), d,
                                            n_tokens * (n_head / n_head_kv), n_head_kv);
    ggml_tensor * products = ggml_mul_mat(ctx, keys, columns);
    float scale = function.scale;
    if (function.softcap > 0.0f) {
        products =
            ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, products, scale / function.softcap)), function.softcap);
        scale = 1.0f;
    }
    ggml_tensor * attention =
        ggml_soft_max_ext(ctx, ggml_reshape_3d(ctx, products, n_cells, n_tokens, n_head), mask, scale, 0.0f);
    if (function.sinks != nullptr) {
        ggml_soft_max_add_sinks(attention, const_cast<ggml_tensor *>(function.sinks));
    }
    return attention;
}

// ggml_custom_op_t: the maximum over rows; parts of each row are split over threads.
void compute_maximum(ggml_tensor * result, int thread, int n_threads, void *) {
    const ggml_tensor * rows = result->src[0];
    const int64_t n = rows->ne[0], begin = n * thread / n_threads, end = n * (thread + 1) / n_threads;
    for (int64_t head = 0; head < rows->ne[2]; ++head) {
        const auto row_of = [&](int64_t r) {
            return reinterpret_cast<const float *>(static_cast<const char *>(rows->data) + head * rows->nb[2] +
                                                   r * rows->nb[1]);
        };
        float * best = reinterpret_cast<float *>(static_cast<char *>(result->data) + head * result->nb[1]);
        std::copy(row_of(0) + begin, row_of(0) + end, best + begin);
        for (int64_t r = 1; r < rows->ne[1]; ++r) {
            const float * row = row_of(r);
            for (int64_t i = begin; i < end; ++i) {
                best[i] = best[i] < row[i] ? row[i] : best[i];
            }
        }
    }
}

// The maximum over tokens and the query heads of each KV head: [n_cells, n_head_kv]. On the host ggml's own operation
// would use one thread.
ggml_tensor * build_maximum(ggml_context * ctx, ggml_tensor * attention, int64_t n_head_kv, bool on_host) {
    const int64_t n_cells = attention->ne[0], n_rows = attention->ne[1] * attention->ne[2] / n_head_kv;
    ggml_tensor * rows = ggml_reshape_3d(ctx, attention, n_cells, n_rows, n_head_kv);
    if (on_host) {
        ggml_tensor * arguments[] = {rows};
        return ggml_custom_4d(ctx, GGML_TYPE_F32, n_cells, n_head_kv, 1, 1, arguments, 1, compute_maximum,
                              GGML_N_TASKS_MAX, nullptr);
    }
    const int over = static_cast<int>(n_rows);
    ggml_tensor * best = ggml_pool_2d(ctx, rows, GGML_OP_POOL_MAX, 1, over, 1, over, 0, 0);
    return ggml_reshape_2d(ctx, best, n_cells, n_head_kv);
}

bool is_on_host(const ggml_tensor * storage) { return ggml_backend_buffer_is_host(storage->buffer); }

// Raises `best` [n_head_kv, n of `cells`] to what a tensor [n_cells, n_head_kv] holds.
void raise_to(const ggml_tensor * found, const KvLayer & layer, const std::vector<KvCell> & cells,
              std::vector<float> & best) {
    std::vector<float> all(static_cast<size_t>(ggml_nelements(found)));
    ggml_backend_tensor_get(found, all.data(), 0, ggml_nbytes(found));
    for (size_t head = 0; head < static_cast<size_t>(layer.n_head_kv); ++head) {
        const float * row = all.data() + head * static_cast<size_t>(found->ne[0]);
        for (size_t i = 0; i < cells.size(); ++i) {
            const float value = row[cells[i].slot];
            if (!std::isfinite(value)) {
                throw DecodeError("the attention of layer " + std::to_string(layer.layer) +
                                  " is not finite: the cache holds NaN or infinity");
            }
            best[head * cells.size() + i] = std::max(best[head * cells.size() + i], value);
        }
    }
}

}  // namespace

std::vector<std::vector<float>> most_attention(DeviceGraph & graph, const KvView & view, uint32_t stream,
                                               const std::vector<KvCell> & cells,
                                               const std::vector<std::vector<AttentionNode>> & readers,
                                               const LayerQueries & queries, KeySource source) {
    std::vector<std::vector<float>> result;
    size_t n_sets = 0;
    for (const KvLayer & layer : view.layers()) {
        result.emplace_back(static_cast<size_t>(layer.n_head_kv) * cells.size(), 0.0f);
        n_sets += readers[result.size() - 1].size();
    }
    const auto is_empty = [](const std::vector<QuerySet> & sets) { return sets.empty() || sets[0].positions.empty(); };
    const auto first = std::find_if_not(queries.begin(), queries.end(), is_empty);
    if (cells.empty() || first == queries.end()) {
        return result;
    }
    const std::vector<int32_t> & positions = first->front().positions;
    ggml_context * ctx = graph.begin(TENSORS_PER_SET * n_sets + 8);
    ggml_tensor * mask =
        graph.input_f32(causal_mask(view, cells, positions), view.n_cells(), static_cast<int64_t>(positions.size()));
    ggml_tensor * index = build_index(graph, view, source);
    std::vector<std::pair<size_t, ggml_tensor *>> outputs;
    for (size_t l = 0; l < queries.size(); ++l) {
        const KvLayer & layer = view.layers()[l];
        for (size_t r = 0; r < queries[l].size(); ++r) {
            if (queries[l][r].positions != positions) {
                throw Error("internal: queries of layer " + std::to_string(layer.layer) + " are of other tokens");
            }
            ggml_tensor * attention =
                build_attention(ctx, graph, view, layer, stream, index, mask, readers[l][r], queries[l][r]);
            outputs.emplace_back(l, build_maximum(ctx, attention, layer.n_head_kv, is_on_host(layer.k)));
            graph.expand(outputs.back().second, /*output*/ true, layer.k);
        }
    }
    graph.run();
    for (const auto & [l, found] : outputs) {
        raise_to(found, view.layers()[l], cells, result[l]);
    }
    return result;
}

KeySource key_source(DeviceGraph & graph, const KvView & view) {
    const bool is_fine = missing_attention(graph, view, KeySource::cache, nullptr).empty();
    return is_fine ? KeySource::cache : KeySource::rows;
}

std::vector<std::string> missing_attention(DeviceGraph & graph, const KvView & view, KeySource source,
                                           ggml_backend_dev_t device) {
    ggml_context * ctx = graph.begin(TENSORS_PER_SET * view.layers().size() + 8);
    ggml_tensor * mask = graph.input_f32(std::vector<float>(view.n_cells(), 0.0f), view.n_cells());
    ggml_tensor * index = build_index(graph, view, source);
    for (const KvLayer & layer : view.layers()) {
        AttentionNode reader;
        reader.n_head = layer.n_head_kv;
        reader.function.emplace();
        QuerySet queries;
        queries.positions = {0};
        queries.rows.resize(static_cast<size_t>(layer.n_head_kv) * static_cast<size_t>(layer.head_dim_k));
        ggml_tensor * attention = build_attention(ctx, graph, view, layer, 0, index, mask, reader, queries);
        graph.expand(build_maximum(ctx, attention, layer.n_head_kv, device == nullptr && is_on_host(layer.k)), true,
                     layer.k);
    }
    return graph.missing_operations(device);
}

}  // namespace triattn
