#include "key_feedback.h"

#include "attention_probe.h"
#include "batch.h"
#include "errors.h"
#include "key_feedback_text.h"
#include "kv_feedback.h"
#include "kv_view.h"

#include "common.h"
#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>

namespace triattn {
namespace {

constexpr int N_PIECES = 16;
constexpr int32_t PIECE = 64;      // tokens; the first one is left out, as all models look at it
constexpr double RIDGE = 6.4;      // over d: of the mean square of a query's values, added to that of each
constexpr int LARGEST_BACK = 127;  // of int8

using Squares = std::vector<std::vector<double>>;  // [n_head_kv][d, d], the lower triangle

// Sums of the products of two values of each query, for each KV head of each layer.
class QuerySquares {
public:
    explicit QuerySquares(const std::vector<FedBackLayer> & layers) : layers_(layers) {
        for (const FedBackLayer & layer : layers) {
            sums_.emplace_back(layer.n_head_kv, std::vector<double>(layer.head_dim * layer.head_dim, 0.0));
        }
    }
    const std::vector<Squares> & sums() const { return sums_; }
    void check() const {
        if (error_) {
            std::rethrow_exception(error_);
        }
    }

    // ggml_backend_sched_eval_callback; exceptions must not cross the C code, so they wait in error_.
    static bool callback(ggml_tensor * node, bool ask, void * data) {
        auto & self = *static_cast<QuerySquares *>(data);
        const ggml_tensor * storage = attention_operands(node).storage;
        for (size_t l = 0; storage != nullptr && !self.error_ && l < self.layers_.size(); ++l) {
            if (!is_or_copies(storage, self.layers_[l].k)) {
                continue;
            }
            if (ask) {
                return true;
            }
            try {
                self.add(l, attention_operands(node).queries);
            } catch (...) {
                self.error_ = std::current_exception();
                return false;
            }
        }
        return !ask;
    }

private:
    // q: [head_dim, n_tokens, n_head, 1]
    void add(size_t l, const ggml_tensor * q) {
        const size_t d = layers_[l].head_dim, n_head = static_cast<size_t>(q->ne[2]), n_kv = layers_[l].n_head_kv;
        if (q->type != GGML_TYPE_F32 || q->nb[0] != sizeof(float) || static_cast<size_t>(q->ne[0]) != d ||
            n_head % n_kv != 0) {
            throw ContextError("the queries of a layer have an unexpected shape; use type_k='q8_0'");
        }
        std::vector<uint8_t> bytes(ggml_nbytes(q));
        ggml_backend_tensor_get(q, bytes.data(), 0, bytes.size());
        std::vector<float> sum(d * d);
        for (size_t head = 0; head < n_head; ++head) {
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (size_t token = 1; token < static_cast<size_t>(q->ne[1]); ++token) {
                const uint8_t * row = bytes.data() + head * q->nb[2] + token * q->nb[1];
                add_products(reinterpret_cast<const float *>(row), d, sum.data());
            }
            std::vector<double> & total = sums_[l][head / (n_head / n_kv)];
            std::transform(total.begin(), total.end(), sum.begin(), total.begin(), std::plus<>());
        }
    }

    static void add_products(const float * values, size_t d, float * sum) {
        for (size_t i = 0; i < d; ++i) {
            for (size_t j = 0; j <= i; ++j) {
                sum[i * d + j] += values[i] * values[j];
            }
        }
    }

    const std::vector<FedBackLayer> & layers_;
    std::vector<Squares> sums_;
    std::exception_ptr error_;
};

// Each piece begins as texts of the model do.
std::vector<std::vector<llama_token>> pieces_of_text(const llama_vocab * vocab, int32_t longest) {
    const std::vector<llama_token> tokens = common_tokenize(vocab, KEY_FEEDBACK_TEXT, /*add_special*/ false);
    std::vector<std::vector<llama_token>> pieces;
    for (size_t begin = 0; begin < tokens.size() && pieces.size() < N_PIECES;) {
        std::vector<llama_token> & piece = pieces.emplace_back();
        if (llama_vocab_get_add_bos(vocab)) {
            piece.push_back(llama_vocab_bos(vocab));
        }
        while (begin < tokens.size() && piece.size() < static_cast<size_t>(longest)) {
            piece.push_back(tokens[begin++]);
        }
    }
    return pieces;
}

}  // namespace

// W = M^T D M is found from the last value on, as the Cholesky decomposition of W in reverse order.
std::vector<uint8_t> solve_feedback(std::vector<double> w, size_t d) {
    double trace = 0;
    for (size_t i = 0; i < d; ++i) {
        trace += w[i * d + i];
    }
    // the mean square of a value becomes 1
    const double factor = trace > 0 && std::isfinite(trace) ? static_cast<double>(d) / trace : 0.0;
    for (size_t i = 0; i < d; ++i) {
        for (size_t j = 0; j <= i; ++j) {
            w[i * d + j] = (factor > 0 ? factor * w[i * d + j] : 0.0) + (i == j ? RIDGE / static_cast<double>(d) : 0.0);
        }
    }
    std::vector<float> weight(d);
    double largest = 0;
    for (size_t i = d; i-- > 0;) {
        double * const row = w.data() + i * d;  // becomes that of M
        weight[i] = static_cast<float>(row[i]);
        for (size_t j = 0; j < i; ++j) {
            const double m = row[j] / row[i];
            for (size_t k = 0; k <= j; ++k) {
                w[j * d + k] -= m * row[k];
            }
        }
        for (size_t j = 0; j < i; ++j) {
            row[j] /= row[i];
            largest = std::max(largest, std::fabs(row[j]));
        }
    }
    const double unit = largest / LARGEST_BACK;
    weight.push_back(static_cast<float>(unit));
    std::vector<uint8_t> bytes(weight.size() * sizeof(float));
    std::memcpy(bytes.data(), weight.data(), bytes.size());
    for (size_t j = 0; j < d; ++j) {
        for (size_t i = j + 1; i < d; ++i) {
            const double number = unit > 0 ? w[i * d + j] / unit : 0.0;
            bytes.push_back(static_cast<uint8_t>(static_cast<int8_t>(std::lround(number))));
        }
    }
    return bytes;
}

int32_t feed_back_key_errors(llama_context * ctx, int64_t n_positions) {
    const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(ctx));
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return 0;
    }
    const std::vector<FedBackLayer> layers = attach_feedback(ctx);
    if (layers.empty()) {
        return 0;
    }
    const auto longest =
        static_cast<int32_t>(std::min<int64_t>({PIECE, n_positions, static_cast<int64_t>(llama_n_batch(ctx))}));
    const std::vector<std::vector<llama_token>> pieces = pieces_of_text(vocab, longest);
    QuerySquares squares(layers);
    observe(ctx, &QuerySquares::callback, &squares);
    int32_t status = 0;
    for (size_t i = 0; i < pieces.size() && status == 0; ++i) {
        const int64_t begin = pieces.size() > 1 ? (n_positions - longest) * static_cast<int64_t>(i) /
                                                      static_cast<int64_t>(pieces.size() - 1)
                                                : 0;
        Batch batch(longest);
        for (size_t t = 0; t < pieces[i].size(); ++t) {
            batch.add(pieces[i][t], static_cast<llama_pos>(begin + static_cast<int64_t>(t)), /*seq*/ 0,
                      /*logits*/ false);
        }
        status = llama_decode(ctx, batch.get());
        llama_synchronize(ctx);
        llama_memory_clear(llama_get_memory(ctx), /*data*/ true);
    }
    observe(ctx, nullptr, nullptr);
    squares.check();
    for (size_t l = 0; l < layers.size() && status == 0; ++l) {
        std::vector<uint8_t> all;
        for (const std::vector<double> & of_head : squares.sums()[l]) {
            const std::vector<uint8_t> bytes = solve_feedback(of_head, layers[l].head_dim);
            all.insert(all.end(), bytes.begin(), bytes.end());
        }
        ggml_backend_tensor_set(layers[l].feedback, all.data(), 0, all.size());
    }
    return status;
}

}  // namespace triattn
