#include "scorer.h"

#include "band_norms.h"
#include "errors.h"
#include "parallel.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace triattn {
namespace {

constexpr size_t TENSORS_PER_LAYER = 40;

bool counts_band(const LayerStats & layer, int band, const ScoreOptions & options) {
    return options.use_unrotated || layer.rope.omega[band] != 0.0;
}

// rows [head_dim*n_head_kv, n] seen per head: [head_dim, n, n_head_kv]
ggml_tensor * view_per_head(ggml_context * ctx, ggml_tensor * rows, int64_t width, int64_t n_head_kv) {
    return ggml_view_3d(ctx, rows, width, rows->ne[1], n_head_kv, rows->nb[1], width * sizeof(float), 0);
}

// keys: [head_dim*n_head_kv, n] float32, contiguous, not Hadamard-rotated. Returns [n, n_head/n_head_kv, n_head_kv].
ggml_tensor * layer_scores(ggml_context * ctx, DeviceGraph & graph, const LayerStats & layer,
                           const ScoreOptions & options, const std::vector<float> & query,
                           const std::vector<float> & weights, ggml_tensor * keys, bool on_host) {
    const int64_t d = layer.rope.head_dim;
    // Query heads are batches of one vector, [width, 1, n_head], that share the keys of their KV head. As columns of
    // one product they would be multiplied in half precision or TF32 on many GPUs, which then keep other keys than a
    // CPU does.
    const auto products = [&](ggml_tensor * rows, int64_t width, const std::vector<float> & vectors) {
        return ggml_mul_mat(ctx, view_per_head(ctx, rows, width, layer.n_head_kv),
                            graph.input_f32(vectors, width, 1, layer.n_head));
    };
    ggml_tensor * scores = nullptr;
    if (options.use_trig) {
        scores = products(keys, d, query);
    }
    if (options.use_norm) {
        ggml_tensor * lengths = (on_host ? band_norms_on_host : band_norms)(ctx, layer.rope, layer.n_head_kv, keys);
        ggml_tensor * term = products(lengths, d / 2, weights);
        scores = scores != nullptr ? ggml_add(ctx, scores, term) : term;
    }
    return ggml_reshape_3d(ctx, scores, keys->ne[1], layer.n_head / layer.n_head_kv, layer.n_head_kv);
}

// group_scores as a graph, with one number more behind each head's scores: a sum that is finite only if all of them
// are, since a maximum passes over NaN. scores: [n, n_head/n_head_kv, n_head_kv]. Returns [n + 1, n_head_kv].
ggml_tensor * build_grouping(ggml_context * ctx, ggml_tensor * scores) {
    const int64_t n = scores->ne[0], group = scores->ne[1], n_head_kv = scores->ne[2];
    ggml_tensor * means = ggml_mean(ctx, scores);
    // without their mean, because some devices compute a variance as E[x^2] - E[x]^2 in single precision
    ggml_tensor * z =
        ggml_norm(ctx, ggml_sub(ctx, scores, means), static_cast<float>(LEAST_DEVIATION * LEAST_DEVIATION));
    const int over_heads = static_cast<int>(group);
    ggml_tensor * best = ggml_pool_2d(ctx, z, GGML_OP_POOL_MAX, 1, over_heads, 1, over_heads, 0, 0);
    ggml_tensor * sums = ggml_sum_rows(ctx, ggml_reshape_2d(ctx, means, group, n_head_kv));
    return ggml_concat(ctx, ggml_reshape_2d(ctx, best, n, n_head_kv), sums, 0);
}

// What build_grouping computed, without the numbers behind. Throws DecodeError if one of them is not finite.
std::vector<float> read_grouped(const ggml_tensor * tensor) {
    const size_t n = static_cast<size_t>(tensor->ne[0]) - 1;
    std::vector<float> rows(static_cast<size_t>(ggml_nelements(tensor)));
    ggml_backend_tensor_get(tensor, rows.data(), 0, ggml_nbytes(tensor));
    std::vector<float> result;
    result.reserve(rows.size());
    for (auto row = rows.begin(); row != rows.end(); row += static_cast<std::ptrdiff_t>(n) + 1) {
        if (!std::isfinite(row[static_cast<std::ptrdiff_t>(n)])) {
            throw_not_finite();
        }
        result.insert(result.end(), row, row + static_cast<std::ptrdiff_t>(n));
    }
    return result;
}

void check_options(const ScoreOptions & options) {
    if (!options.use_trig && !options.use_norm) {
        throw BudgetError("both parts of the score are switched off; set use_trig or use_norm");
    }
    if (options.use_trig && options.offsets.empty()) {
        throw BudgetError("offsets is empty, it must have at least one future distance");
    }
}

}  // namespace

std::vector<int32_t> default_offsets() {
    std::vector<int32_t> offsets;
    for (int i = 0; i <= 16 * 8; ++i) {
        const auto offset = static_cast<int32_t>(std::lround(std::exp2(i / 8.0)));
        if (offsets.empty() || offset > offsets.back()) {
            offsets.push_back(offset);
        }
    }
    return offsets;
}

std::vector<std::complex<double>> offset_means(const LayerStats & layer, const ScoreOptions & options) {
    const RopeLayout & rope = layer.rope;
    std::vector<std::complex<double>> means;
    for (int f = 0; f < rope.n_bands(); ++f) {
        std::complex<double> sum = 0;
        if (counts_band(layer, f, options)) {
            for (int32_t offset : options.offsets) {
                sum += std::polar(1.0, rope.omega[f] * offset);
            }
        }
        means.push_back(sum * rope.band_scale(f) / static_cast<double>(options.offsets.size()));
    }
    return means;
}

std::vector<float> synthetic_query(const LayerStats & layer, int64_t position,
                                   const std::vector<std::complex<double>> & means) {
    const RopeLayout & rope = layer.rope;
    std::vector<float> query(layer.centre.size(), 0.0f);
    for (int f = 0; f < rope.n_bands(); ++f) {
        const std::complex<double> turn = std::polar(1.0, rope.omega[f] * static_cast<double>(position)) * means[f];
        const auto [a, b] = rope.dims(f);
        for (int h = 0; h < layer.n_head; ++h) {
            const float * mu = layer.centre.data() + static_cast<size_t>(h) * rope.head_dim;
            float * out = query.data() + static_cast<size_t>(h) * rope.head_dim;
            const std::complex<double> q = turn * std::complex<double>(mu[a], mu[b]);
            out[a] = static_cast<float>(q.real());
            out[b] = static_cast<float>(q.imag());
        }
    }
    return query;
}

std::vector<float> norm_weights(const LayerStats & layer, const ScoreOptions & options) {
    const RopeLayout & rope = layer.rope;
    std::vector<float> weights(layer.magnitude.size(), 0.0f);
    for (int h = 0; h < layer.n_head; ++h) {
        const float * mu = layer.centre.data() + static_cast<size_t>(h) * rope.head_dim;
        for (int f = 0; f < rope.n_bands(); ++f) {
            if (!counts_band(layer, f, options)) {
                continue;
            }
            const auto [a, b] = rope.dims(f);
            const size_t i = static_cast<size_t>(h) * rope.n_bands() + f;
            const double centre = std::hypot(static_cast<double>(mu[a]), static_cast<double>(mu[b]));
            // E|q| >= |E[q]|; rounding must not turn the difference negative
            weights[i] = static_cast<float>(rope.band_scale(f) * std::max(0.0, layer.magnitude[i] - centre));
        }
    }
    return weights;
}

Scorer::Scorer(const KvView & view, Stats stats, ScoreOptions options, DeviceGraph & graph)
    : view_(view),
      stats_(std::move(stats)),
      options_(std::move(options)),
      graph_(graph),
      hadamard_(view.layers().size(), 0),
      weights_(view.layers().size()) {
    check_options(options_);
    if (stats_.layers.size() != view.layers().size()) {
        throw StatsError("the statistics have " + std::to_string(stats_.layers.size()) + " layers, the model has " +
                         std::to_string(view.layers().size()) + " layers with full attention; calibrate again");
    }
    for (size_t i = 0; i < stats_.layers.size(); ++i) {
        const LayerStats & have = stats_.layers[i];
        const KvLayer & want = view.layers()[i];
        check(have);
        if (have.layer != want.layer || have.n_head_kv != want.n_head_kv || have.rope.head_dim != want.head_dim_k) {
            throw StatsError("the statistics say layer " + std::to_string(have.layer) + " with " +
                             std::to_string(have.n_head_kv) + " KV heads of " + std::to_string(have.rope.head_dim) +
                             ", the model has layer " + std::to_string(want.layer) + " with " +
                             std::to_string(want.n_head_kv) + " of " + std::to_string(want.head_dim_k) +
                             "; calibrate again");
        }
    }
    adopt_rope(probe_attention(view));
    for (const LayerStats & layer : stats_.layers) {
        offset_means_.push_back(offset_means(layer, options_));
        norm_weights_.push_back(norm_weights(layer, options_));
    }
}

void Scorer::adopt_rope(const std::vector<AttentionNode> & nodes) {
    for (size_t i = 0; i < stats_.layers.size(); ++i) {
        LayerStats & layer = stats_.layers[i];
        const auto node = std::find_if(nodes.begin(), nodes.end(),
                                       [&](const AttentionNode & n) { return n.owner == layer.layer && !n.sliding; });
        if (node == nodes.end()) {
            throw UnsupportedModelError("no attention was found over the cache of layer " +
                                        std::to_string(layer.layer) + "; load the model with budget=None");
        }
        const RopeLayout &have = layer.rope, &want = node->rope;
        if (!have.same_bands(want)) {
            throw StatsError("the statistics say that layer " + std::to_string(layer.layer) + " rotates " +
                             std::to_string(have.n_rot) + " dimensions from " + std::to_string(have.rot_begin) +
                             " on, the model " + std::to_string(want.n_rot) + " from " +
                             std::to_string(want.rot_begin) + " on" +
                             (have.interleaved == want.interleaved ? "" : ", in other pairs") + "; calibrate again");
        }
        layer.rope = want;
        hadamard_[i] = node->hadamard ? 1 : 0;
        weights_[i] = node->weights;
    }
}

std::vector<Scorer::Output> Scorer::build(uint32_t stream, const std::vector<KvCell> & cells, int64_t position,
                                          Form form) {
    const int64_t n = static_cast<int64_t>(cells.size());
    std::vector<int32_t> slots;
    for (const KvCell & cell : cells) {
        slots.push_back(static_cast<int32_t>(cell.slot));
    }
    ggml_context * ctx = graph_.begin(TENSORS_PER_LAYER * stats_.layers.size() + 8);
    ggml_tensor * index = graph_.input(slots.data(), GGML_TYPE_I32, n);
    ggml_tensor * rotation = nullptr;
    if (view_.k_rotation_size() > 0) {
        rotation = graph_.input_f32(view_.k_rotation(), view_.k_rotation_size(), view_.k_rotation_size());
    }
    std::vector<Output> outputs;
    for (size_t i = 0; i < stats_.layers.size(); ++i) {
        ggml_tensor * storage = view_.layers()[i].k;
        ggml_tensor * plane =
            ggml_view_2d(ctx, storage, storage->ne[0], storage->ne[1], storage->nb[1], stream * storage->nb[2]);
        ggml_tensor * keys = ggml_get_rows(ctx, plane, index);  // float32 whatever the cache's type
        if (rotation != nullptr && hadamard_[i] != 0) {
            // symmetric and orthonormal: rotating once more undoes it
            ggml_tensor * blocks = ggml_reshape_2d(ctx, keys, rotation->ne[0], ggml_nelements(keys) / rotation->ne[0]);
            ggml_tensor * undone = ggml_mul_mat(ctx, rotation, blocks);
            ggml_mul_mat_set_hint(undone, GGML_HINT_SRC0_IS_HADAMARD);  // backends that know a faster way take it
            keys = ggml_reshape_2d(ctx, undone, storage->ne[0], n);
        }
        if (!weights_[i].empty()) {
            // what multiplies the queries' dimensions may as well multiply those of the keys: then queries are plain
            // RoPE
            const int64_t d = stats_.layers[i].rope.head_dim;
            ggml_tensor * heads = ggml_reshape_2d(ctx, keys, d, ggml_nelements(keys) / d);
            keys = ggml_reshape_2d(ctx, ggml_mul(ctx, heads, graph_.input_f32(weights_[i], d)), storage->ne[0], n);
        }
        const bool on_host = form != Form::grouped_anywhere && ggml_backend_buffer_is_host(storage->buffer);
        ggml_tensor * scores = layer_scores(ctx, graph_, stats_.layers[i], options_,
                                            synthetic_query(stats_.layers[i], position, offset_means_[i]),
                                            norm_weights_[i], keys, on_host);
        const bool is_grouped = form != Form::of_query_heads && !on_host;
        ggml_tensor * output = is_grouped ? build_grouping(ctx, scores) : scores;
        graph_.expand(output, /*output*/ true, storage);
        outputs.push_back({output, is_grouped});
    }
    return outputs;
}

std::vector<std::string> Scorer::missing_operations(ggml_backend_dev_t device) {
    build(0, {{0, 0}, {1, 1}}, 2, device != nullptr ? Form::grouped_anywhere : Form::grouped_on_devices);
    return graph_.missing_operations(device);
}

HeadScores Scorer::score(uint32_t stream, const std::vector<KvCell> & cells, int64_t position) {
    const std::vector<Output> outputs = build(stream, cells, position, Form::of_query_heads);
    graph_.run();
    HeadScores result;
    for (const Output & output : outputs) {
        result.emplace_back(ggml_nelements(output.tensor));
        ggml_backend_tensor_get(output.tensor, result.back().data(), 0, ggml_nbytes(output.tensor));
    }
    return result;
}

Scores Scorer::group(uint32_t stream, const std::vector<KvCell> & cells, int64_t position, int n_threads) {
    const std::vector<Output> outputs = build(stream, cells, position, Form::grouped_on_devices);
    graph_.run();
    Scores result(outputs.size());
    size_t n_scores = 0;
    for (size_t i = 0; i < outputs.size(); ++i) {
        if (outputs[i].is_grouped) {
            result[i] = read_grouped(outputs[i].tensor);
        } else if (ggml_backend_buffer_is_host(outputs[i].tensor->buffer)) {
            n_scores += static_cast<size_t>(ggml_nelements(outputs[i].tensor));
        } else {
            throw Error("internal: scores of keys in host memory lie on a device");
        }
    }
    parallel_for(outputs.size(), threads_for(n_scores, n_threads), [&](size_t i) {
        if (!outputs[i].is_grouped) {
            const LayerShape shape{stats_.layers[i].n_head, stats_.layers[i].n_head_kv};
            result[i].resize(shape.n_head_kv * cells.size());
            group_scores(ggml_get_data_f32(outputs[i].tensor), cells.size(), shape, result[i].data());
        }
    });
    return result;
}

std::vector<float> score_keys(const LayerStats & layer, const std::vector<float> & keys, int64_t n_keys,
                              int64_t position, const ScoreOptions & options, bool on_host) {
    check_options(options);
    check(layer);
    const int64_t width = static_cast<int64_t>(layer.n_head_kv) * layer.rope.head_dim;
    if (n_keys <= 0 || static_cast<int64_t>(keys.size()) != n_keys * width) {
        throw StatsError("keys must be [n_keys, " + std::to_string(layer.n_head_kv) + ", " +
                         std::to_string(layer.rope.head_dim) + "] and not empty");
    }
    DeviceGraph graph({}, 1);
    ggml_context * ctx = graph.begin(TENSORS_PER_LAYER + 8);
    ggml_tensor * scores =
        layer_scores(ctx, graph, layer, options, synthetic_query(layer, position, offset_means(layer, options)),
                     norm_weights(layer, options), graph.input_f32(keys, width, n_keys), on_host);
    graph.expand(scores, /*output*/ true);
    graph.run();
    std::vector<float> result(ggml_nelements(scores));
    ggml_backend_tensor_get(scores, result.data(), 0, ggml_nbytes(scores));
    return result;
}

std::vector<float> group_scores_by_graph(const std::vector<float> & scores, size_t n_keys, LayerShape shape) {
    DeviceGraph graph({}, 1);
    ggml_context * ctx = graph.begin(TENSORS_PER_LAYER);
    const int64_t n_head_kv = shape.n_head_kv;
    ggml_tensor * output =
        build_grouping(ctx, graph.input_f32(scores, static_cast<int64_t>(n_keys), shape.n_head / n_head_kv, n_head_kv));
    graph.expand(output, /*output*/ true);
    graph.run();
    return read_grouped(output);
}

}  // namespace triattn
