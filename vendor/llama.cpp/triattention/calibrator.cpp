#include "calibrator.h"

#include "attention_probe.h"
#include "decoder_params.h"
#include "device_graph.h"
#include "errors.h"
#include "flash_attention.h"
#include "key_features.h"
#include "key_rows.h"
#include "kv_view.h"
#include "query_capture.h"
#include "second_reading.h"

#include "llama-cpp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

namespace triattn {
namespace {

constexpr int32_t CHUNK = 128;    // read again at once
constexpr int32_t N_SKIPPED = 8;  // the first keys of a text are sinks: they get attention for what they are not

// Sums over tokens for the queries of one attention operation.
class Sums {
public:
    explicit Sums(const AttentionNode & node)
        : node_(node),
          centre_(static_cast<size_t>(node.n_head) * node.rope.head_dim, 0.0),
          magnitude_(static_cast<size_t>(node.n_head) * node.rope.n_bands(), 0.0) {}

    void add(const QuerySet & queries);
    // The sums over query heads first..first + n, as means behind those of `out`.
    void append_means(int first, int n, LayerStats & out) const;
    const AttentionNode & node() const { return node_; }

private:
    AttentionNode node_;
    int64_t n_tokens_ = 0;
    std::vector<double> centre_;     // [n_head, head_dim]
    std::vector<double> magnitude_;  // [n_head, head_dim/2]
};

void Sums::add(const QuerySet & queries) {
    const RopeLayout & rope = node_.rope;
    const auto d = static_cast<size_t>(rope.head_dim), n_head = static_cast<size_t>(node_.n_head);
    // undo what multiplies each dimension after RoPE; a dimension that counts for nothing has no statistics either
    std::vector<double> divisor(d, 1.0);
    for (size_t i = 0; i < node_.weights.size(); ++i) {
        divisor[i] = node_.weights[i] != 0.0f ? node_.weights[i] : std::numeric_limits<double>::infinity();
    }
    for (size_t t = 0; t < queries.positions.size(); ++t) {
        const double position = queries.positions[t];
        for (int f = 0; f < rope.n_bands(); ++f) {
            const auto [a, b] = rope.dims(f);
            const double scale = rope.band_scale(f);
            const double c = std::cos(rope.omega[f] * position) / scale;
            const double s = std::sin(rope.omega[f] * position) / scale;
            for (size_t h = 0; h < n_head; ++h) {
                const float * x = queries.rows.data() + (t * n_head + h) * d;
                const double xa = x[a] / divisor[a], xb = x[b] / divisor[b];
                const double re = c * xa + s * xb;
                const double im = c * xb - s * xa;
                centre_[h * d + a] += re;
                centre_[h * d + b] += im;
                magnitude_[h * (d / 2) + f] += std::sqrt(re * re + im * im);
            }
        }
    }
    n_tokens_ += static_cast<int64_t>(queries.positions.size());
}

void Sums::append_means(int first, int n, LayerStats & out) const {
    const int d = node_.rope.head_dim;
    const auto count = static_cast<double>(n_tokens_);
    for (int i = first * d; i < (first + n) * d; ++i) {
        out.centre.push_back(static_cast<float>(centre_[i] / count));
    }
    for (int i = first * d / 2; i < (first + n) * d / 2; ++i) {
        out.magnitude.push_back(static_cast<float>(magnitude_[i] / count));
    }
    out.n_head += n;
}

// All readers of one KV head side by side.
LayerStats mean_of(const KvLayer & layer, const std::vector<Sums> & readers) {
    LayerStats out;
    out.layer = layer.layer;
    out.n_head_kv = layer.n_head_kv;
    out.rope = readers.front().node().rope;
    for (int kv = 0; kv < layer.n_head_kv; ++kv) {
        for (const Sums & sums : readers) {
            const int n_head = sums.node().n_head;
            if (n_head % layer.n_head_kv != 0) {
                throw UnsupportedModelError("the query heads of layer " + std::to_string(layer.layer) +
                                            " do not divide over its KV heads; load the model with budget=None");
            }
            const int group = n_head / layer.n_head_kv;
            sums.append_means(kv * group, group, out);
        }
    }
    return out;
}

// One calibration.
class Calibration {
public:
    Calibration(llama_model * model, const CalibrationOptions & options);
    Stats run(const std::vector<llama_token> & tokens);

private:
    using Table = std::vector<std::vector<std::vector<float>>>;  // [layer][kv_head][position]

    void read(const std::vector<llama_token> & piece, int32_t first, int32_t n);
    void read_again(const std::vector<llama_token> & piece, int32_t end);
    void hand_over(int32_t n);
    void check(int status);
    bool reads_again() const { return static_cast<bool>(options_.on_keys); }

    const CalibrationOptions & options_;
    bool was_interrupted_ = false;
    int32_t step_ = 0;
    llama_context_ptr ctx_;
    std::unique_ptr<KvView> view_;
    std::vector<std::vector<AttentionNode>> readers_;
    std::unique_ptr<QueryCapture> capture_;
    std::unique_ptr<DeviceGraph> graph_;
    std::unique_ptr<SecondReading> second_reading_;  // where keys are wanted
    std::vector<std::vector<Sums>> sums_;            // [layer][reader]
    Table most_;                                     // attention in the second reading
};

Calibration::Calibration(llama_model * model, const CalibrationOptions & options) : options_(options) {
    const int32_t n_behind = reads_again() ? CHUNK + READ_AGAIN_BEFORE : 0;
    llama_context_params params = llama_context_default_params();
    step_ = reads_again() ? CHUNK : std::min(options.n_ubatch, options.n_ctx);
    params.n_ctx = static_cast<uint32_t>(options.n_ctx + n_behind);
    params.n_ubatch = static_cast<uint32_t>(std::max(step_, n_behind));
    params.n_batch = params.n_ubatch;
    params.n_seq_max = reads_again() ? 2 : 1;
    params.kv_unified = true;
    params.n_threads = options.n_threads;
    params.n_threads_batch = options.n_threads;
    params.type_k = GGML_TYPE_F16;  // never Hadamard-rotated: then queries would be as well
    params.type_v = GGML_TYPE_F16;
    params.flash_attn_type = flash_attention_for(model, FlashAttention::automatic);
    params.swa_full = reads_again();  // cells that two sequences share cannot be used again
    apply(options.rope, params);
    params.no_perf = true;
    params.abort_callback = [](void * self) {
        auto & of = *static_cast<Calibration *>(self);
        of.was_interrupted_ = of.was_interrupted_ || (of.options_.interrupted && of.options_.interrupted());
        return of.was_interrupted_;
    };
    params.abort_callback_data = this;
    ctx_.reset(llama_init_from_model(model, params));
    if (!ctx_) {
        throw ContextError("llama.cpp could not make a context of " + std::to_string(options.n_ctx) +
                           " tokens for calibration; use a smaller n_ctx");
    }
    view_ = std::make_unique<KvView>(ctx_.get());
    readers_ = readers_of(*view_, probe_attention(*view_));
    std::vector<ggml_tensor *> tensors;
    for (size_t l = 0; l < readers_.size(); ++l) {
        if (reads_again() && !readers_[l].front().function) {
            throw UnsupportedModelError("layer " + std::to_string(view_->layers()[l].layer) +
                                        " has no flash attention, so what its keys get cannot be computed");
        }
        sums_.emplace_back(readers_[l].begin(), readers_[l].end());
        tensors.push_back(view_->layers()[l].k);
        if (view_->layers()[l].v != nullptr) {
            tensors.push_back(view_->layers()[l].v);
        }
    }
    capture_ = std::make_unique<QueryCapture>(*view_, readers_);
    graph_ = std::make_unique<DeviceGraph>(tensors, options.n_threads);
    if (reads_again()) {
        second_reading_ = std::make_unique<SecondReading>(ctx_.get(), *view_, readers_, *capture_, *graph_);
    }
}

void Calibration::check(int status) {
    if (was_interrupted_ || (options_.interrupted && options_.interrupted())) {
        throw InterruptedError("calibration was interrupted");
    }
    if (status != 0) {
        throw DecodeError("llama.cpp could not decode the calibration text (status " + std::to_string(status) + ")");
    }
}

void Calibration::read(const std::vector<llama_token> & piece, int32_t first, int32_t n) {
    std::vector<int32_t> positions(static_cast<size_t>(n));
    std::iota(positions.begin(), positions.end(), first);
    std::vector<llama_token> step(piece.begin() + first, piece.begin() + first + n);
    capture_->start(std::move(positions), std::vector<uint8_t>(static_cast<size_t>(n), 1));
    const int status = llama_decode(ctx_.get(), llama_batch_get_one(step.data(), n));
    llama_synchronize(ctx_.get());
    const LayerQueries queries = capture_->stop();
    check(status);
    for (size_t l = 0; l < queries.size(); ++l) {
        for (size_t r = 0; r < queries[l].size(); ++r) {
            if (queries[l][r].positions.size() != static_cast<size_t>(n)) {
                throw UnsupportedModelError("no attention was seen over the cache of layer " +
                                            std::to_string(view_->layers()[l].layer) +
                                            "; load the model with budget=None");
            }
            sums_[l][r].add(queries[l][r]);
        }
    }
}

void Calibration::read_again(const std::vector<llama_token> & piece, int32_t end) {
    check(second_reading_->raise({piece.begin(), piece.begin() + end}, CHUNK + READ_AGAIN_BEFORE, most_));
}

// The keys of a piece of which `n` tokens were read.
void Calibration::hand_over(int32_t n) {
    std::vector<KvCell> cells = view_->shared_cells(0);
    cells.erase(cells.begin(), cells.begin() + std::min(n, N_SKIPPED));
    if (cells.empty()) {
        return;
    }
    std::vector<int32_t> positions;
    for (const KvCell & cell : cells) {
        positions.push_back(cell.pos);
    }
    const std::vector<KeyRows> rows = read_key_rows(*graph_, *view_, readers_, 0, cells);
    for (size_t l = 0; l < rows.size(); ++l) {
        const RopeLayout & rope = readers_[l].front().rope;
        const std::vector<Turn> turns = turns_back(rope, coordinates_of_text(positions));
        for (size_t head = 0; head < rows[l].keys.size(); ++head) {
            std::vector<float> targets;
            for (int32_t position : positions) {
                targets.push_back(std::log(most_[l][head][static_cast<size_t>(position)] + LEAST_ATTENTION));
            }
            options_.on_keys(l, head, key_features(rope, rows[l].keys[head], rows[l].values[head], turns),
                             std::move(targets));
        }
    }
}

Stats Calibration::run(const std::vector<llama_token> & tokens) {
    const auto total = static_cast<int64_t>(tokens.size());
    for (int64_t begin = 0; begin < total; begin += options_.n_ctx) {
        const auto n = static_cast<int32_t>(std::min<int64_t>(options_.n_ctx, total - begin));
        const std::vector<llama_token> piece(tokens.begin() + begin, tokens.begin() + begin + n);
        llama_memory_clear(llama_get_memory(ctx_.get()), true);
        most_.clear();
        for (const KvLayer & layer : view_->layers()) {
            most_.emplace_back(layer.n_head_kv, std::vector<float>(static_cast<size_t>(n), 0.0f));
        }
        for (int32_t done = 0; done < n;) {
            const int32_t step = std::min(step_, n - done);
            read(piece, done, step);
            done += step;
            if (reads_again()) {
                read_again(piece, done);
            }
            if (options_.progress) {
                options_.progress(begin + done, total);
            }
        }
        if (reads_again()) {
            hand_over(n);
        }
    }
    Stats stats;
    for (size_t l = 0; l < sums_.size(); ++l) {
        stats.layers.push_back(mean_of(view_->layers()[l], sums_[l]));
    }
    stats.n_tokens = total;
    return stats;
}

}  // namespace

Stats calibrate(llama_model * model, const std::vector<llama_token> & tokens, const CalibrationOptions & options) {
    if (options.n_threads < 1 || options.n_threads > GGML_MAX_N_THREADS) {
        throw ContextError("n_threads is " + std::to_string(options.n_threads) + ", it must be from 1 to " +
                           std::to_string(GGML_MAX_N_THREADS));
    }
    const int32_t n_behind = options.on_keys ? CHUNK + READ_AGAIN_BEFORE : 0;
    check_learned_positions(options.n_ctx + n_behind, llama_model_n_ctx_train(model), has_learned_positions(model));
    return Calibration(model, options).run(tokens);
}

}  // namespace triattn
