#include "calibrator.h"

#include "attention_probe.h"
#include "decoder_params.h"
#include "errors.h"
#include "flash_attention.h"
#include "kv_view.h"

#include "ggml-backend.h"
#include "llama-cpp.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <map>
#include <string>

namespace triattn {
namespace {

// Sums over tokens for the queries of one attention node that reads a cache.
struct Sums {
    int n_head = 0;
    int64_t n_tokens = 0;
    std::vector<double> centre;     // [n_head, head_dim]
    std::vector<double> magnitude;  // [n_head, head_dim/2]
};

// The queries of a node as they meet the cached keys, [n_stream=1][n_head][n_tokens][head_dim] through strides.
class Queries {
public:
    explicit Queries(const ggml_tensor * q) : q_(q), bytes_(ggml_nbytes(q)) {
        ggml_backend_tensor_get(q, bytes_.data(), 0, bytes_.size());
    }
    const float * row(int64_t token, int64_t head) const {
        return reinterpret_cast<const float *>(bytes_.data() + token * q_->nb[1] + head * q_->nb[2]);
    }

private:
    const ggml_tensor * q_;
    std::vector<uint8_t> bytes_;
};

class Observer {
public:
    void set_view(const KvView & view) {
        for (const AttentionNode & node : probe_attention(view)) {
            attention_[node.owner] = node;  // rotations and weights are the same for all that read a cache
        }
        layers_ = &view.layers();
    }

    void begin_step(int32_t first_position, int32_t n_tokens) {
        first_position_ = first_position;
        n_tokens_ = n_tokens;
        readers_.clear();
    }

    // ggml_backend_sched_eval_callback; exceptions must not cross the C code, so they wait in error_.
    static bool callback(ggml_tensor * node, bool ask, void * self) {
        return static_cast<Observer *>(self)->observe(node, ask);
    }

    void rethrow() {
        if (error_) {
            std::rethrow_exception(error_);
        }
    }

    Stats result() const;

private:
    bool observe(ggml_tensor * node, bool ask) {
        if (error_ || layers_ == nullptr) {
            return !ask;
        }
        const KvLayer * layer = reads_cache(node);
        if (ask) {
            return layer != nullptr;
        }
        try {
            add_queries(*layer, attention_operands(node).queries);
        } catch (...) {
            error_ = std::current_exception();
            return false;
        }
        return true;
    }

    // The layer whose stored keys this node multiplies with queries, or null.
    const KvLayer * reads_cache(const ggml_tensor * node) const {
        const ggml_tensor * storage = attention_operands(node).storage;
        const auto found = std::find_if(layers_->begin(), layers_->end(),
                                        [&](const KvLayer & layer) { return is_or_copies(storage, layer.k); });
        return found != layers_->end() ? &*found : nullptr;
    }

    void add_queries(const KvLayer & layer, const ggml_tensor * q);

    const std::vector<KvLayer> * layers_ = nullptr;
    int32_t first_position_ = 0, n_tokens_ = 0;  // of this step
    std::map<int, AttentionNode> attention_;     // of layers
    std::map<int, int> readers_;                 // layer -> nodes seen in this step
    std::map<int, std::vector<Sums>> sums_;      // layer -> one entry per node that reads its cache
    std::exception_ptr error_;
};

void Observer::add_queries(const KvLayer & layer, const ggml_tensor * q) {
    const int d = static_cast<int>(q->ne[0]);
    const RopeLayout & rope = attention_.at(layer.layer).rope;
    if (q->type != GGML_TYPE_F32 || d != layer.head_dim_k || q->ne[1] != n_tokens_ || q->ne[3] != 1) {
        throw UnsupportedModelError("the queries of layer " + std::to_string(layer.layer) +
                                    " have an unexpected shape");
    }
    auto & nodes = sums_[layer.layer];
    const size_t reader = static_cast<size_t>(readers_[layer.layer]++);
    if (reader == nodes.size()) {
        Sums sums;
        sums.n_head = static_cast<int>(q->ne[2]);
        sums.centre.assign(static_cast<size_t>(sums.n_head) * d, 0.0);
        sums.magnitude.assign(static_cast<size_t>(sums.n_head) * d / 2, 0.0);
        nodes.push_back(std::move(sums));
    }
    Sums & sums = nodes[reader];
    // undo what multiplies each dimension after RoPE; a dimension that counts for nothing has no statistics either
    std::vector<double> divisor(static_cast<size_t>(d), 1.0);
    const std::vector<float> & weights = attention_.at(layer.layer).weights;
    for (size_t i = 0; i < weights.size(); ++i) {
        divisor[i] = weights[i] != 0.0f ? weights[i] : std::numeric_limits<double>::infinity();
    }
    const Queries queries(q);
    for (int32_t t = 0; t < n_tokens_; ++t) {
        const double position = static_cast<double>(first_position_ + t);
        for (int f = 0; f < d / 2; ++f) {
            const auto [a, b] = rope.dims(f);
            const double scale = rope.band_scale(f);
            const double c = std::cos(rope.omega[f] * position) / scale;
            const double s = std::sin(rope.omega[f] * position) / scale;
            for (int h = 0; h < sums.n_head; ++h) {
                const float * x = queries.row(t, h);
                const double xa = x[a] / divisor[a], xb = x[b] / divisor[b];
                const double re = c * xa + s * xb;
                const double im = c * xb - s * xa;
                sums.centre[static_cast<size_t>(h) * d + a] += re;
                sums.centre[static_cast<size_t>(h) * d + b] += im;
                sums.magnitude[static_cast<size_t>(h) * (d / 2) + f] += std::sqrt(re * re + im * im);
            }
        }
    }
    sums.n_tokens += n_tokens_;
}

Stats Observer::result() const {
    Stats stats;
    for (const KvLayer & layer : *layers_) {
        const auto found = sums_.find(layer.layer);
        if (found == sums_.end()) {
            throw UnsupportedModelError("no attention was seen over the cache of layer " + std::to_string(layer.layer) +
                                        "; load the model with budget=None");
        }
        const std::vector<Sums> & nodes = found->second;
        LayerStats out;
        out.layer = layer.layer;
        out.n_head_kv = layer.n_head_kv;
        out.rope = attention_.at(layer.layer).rope;
        // all readers of one KV head side by side
        for (int kv = 0; kv < layer.n_head_kv; ++kv) {
            for (const Sums & sums : nodes) {
                if (sums.n_head % layer.n_head_kv != 0) {
                    throw UnsupportedModelError("the query heads of layer " + std::to_string(layer.layer) +
                                                " do not divide over its KV heads");
                }
                const int group = sums.n_head / layer.n_head_kv, d = out.rope.head_dim;
                const double n = static_cast<double>(sums.n_tokens);
                for (int i = kv * group * d; i < (kv + 1) * group * d; ++i) {
                    out.centre.push_back(static_cast<float>(sums.centre[i] / n));
                }
                for (int i = kv * group * d / 2; i < (kv + 1) * group * d / 2; ++i) {
                    out.magnitude.push_back(static_cast<float>(sums.magnitude[i] / n));
                }
                out.n_head += group;
            }
        }
        stats.layers.push_back(std::move(out));
    }
    return stats;
}

}  // namespace

Stats calibrate(llama_model * model, const std::vector<llama_token> & tokens, const CalibrationOptions & options) {
    if (options.n_threads < 1 || options.n_threads > GGML_MAX_N_THREADS) {
        throw ContextError("n_threads is " + std::to_string(options.n_threads) + ", it must be from 1 to " +
                           std::to_string(GGML_MAX_N_THREADS));
    }
    check_learned_positions(options.n_ctx, llama_model_n_ctx_train(model), has_learned_positions(model));
    Observer observer;
    bool was_interrupted = false;
    const auto poll = [&] {
        was_interrupted = was_interrupted || (options.interrupted && options.interrupted());
        return was_interrupted;
    };
    using Poll = decltype(poll);

    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(options.n_ctx);
    params.n_ubatch = static_cast<uint32_t>(std::min(options.n_ubatch, options.n_ctx));
    params.n_batch = params.n_ubatch;
    params.n_seq_max = 1;
    params.n_threads = options.n_threads;
    params.n_threads_batch = options.n_threads;
    params.type_k = GGML_TYPE_F16;  // never Hadamard-rotated: then queries would be as well
    params.type_v = GGML_TYPE_F16;
    params.flash_attn_type = flash_attention_for(model, FlashAttention::automatic);
    params.swa_full = false;
    apply(options.rope, params);
    params.no_perf = true;
    params.cb_eval = Observer::callback;
    params.cb_eval_user_data = &observer;
    params.abort_callback = [](void * p) { return (*static_cast<const Poll *>(p))(); };
    params.abort_callback_data = const_cast<void *>(static_cast<const void *>(&poll));
    const llama_context_ptr ctx(llama_init_from_model(model, params));
    if (!ctx) {
        throw ContextError("llama.cpp could not make a context of " + std::to_string(options.n_ctx) +
                           " tokens for calibration");
    }
    const KvView view(ctx.get());
    observer.set_view(view);

    const int64_t total = static_cast<int64_t>(tokens.size());
    for (int64_t done = 0; done < total;) {
        const int32_t position = static_cast<int32_t>(done % options.n_ctx);
        if (position == 0) {
            llama_memory_clear(llama_get_memory(ctx.get()), true);
        }
        const int32_t n =
            static_cast<int32_t>(std::min<int64_t>({params.n_ubatch, options.n_ctx - position, total - done}));
        observer.begin_step(position, n);
        std::vector<llama_token> step(tokens.begin() + done, tokens.begin() + done + n);
        const int status = llama_decode(ctx.get(), llama_batch_get_one(step.data(), n));
        observer.rethrow();
        if (was_interrupted || poll()) {
            throw InterruptedError("calibration was interrupted");
        }
        if (status != 0) {
            throw DecodeError("llama.cpp could not decode the calibration text (status " + std::to_string(status) +
                              ")");
        }
        done += n;
        if (options.progress) {
            options.progress(done, total);
        }
    }
    Stats stats = observer.result();
    stats.n_tokens = total;
    return stats;
}

}  // namespace triattn
