#include "controller.h"

#include "errors.h"

#include "llama.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

namespace triattn {
namespace {

class Stopwatch {
public:
    explicit Stopwatch(double & total) : total_(total) {}
    ~Stopwatch() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
    Stopwatch(const Stopwatch &) = delete;
    Stopwatch & operator=(const Stopwatch &) = delete;

private:
    double & total_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::vector<ggml_tensor *> tensors_of(const KvView & view) {
    std::vector<ggml_tensor *> tensors;
    for (const KvLayer & layer : view.layers()) {
        tensors.push_back(layer.k);
        if (layer.v != nullptr) {
            tensors.push_back(layer.v);
        }
    }
    return tensors;
}

}  // namespace

void check(const EvictionConfig & config) {
    if (config.interval < 1) {
        throw BudgetError("interval is " + std::to_string(config.interval) + ", it must be at least 1");
    }
    if (config.window < 1) {
        throw BudgetError("window is " + std::to_string(config.window) +
                          ", it must be at least 1: the newest key must stay");
    }
    if (config.n_sink < 0) {
        throw BudgetError("n_sink is " + std::to_string(config.n_sink) + ", it must not be negative");
    }
    const int64_t least = static_cast<int64_t>(config.n_sink) + config.window + 1;
    if (config.budget < least) {
        throw BudgetError("budget is " + std::to_string(config.budget) + ", but n_sink (" +
                          std::to_string(config.n_sink) + ") + window (" + std::to_string(config.window) +
                          ") + 1 need at least " + std::to_string(least) + "; raise the budget or lower window");
    }
}

Controller::Controller(llama_context * ctx, const EvictionConfig & config, Stats stats, int n_threads)
    : ctx_(ctx), config_(config), view_(ctx), graph_(tensors_of(view_), n_threads), n_threads_(n_threads) {
    check(config_);
    if (moves_rows(config_.mode) && view_.v_transposed()) {
        throw BudgetError("mode moves values between cells, which needs flash attention, and this context has none; "
                          "use flash_attn=True or mode='global'");
    }
    if ((moves_rows(config_.mode) || needs_scores(config_.mode)) && view_.has_alibi()) {
        throw UnsupportedModelError(
            "this model's attention is biased by distance (ALiBi): scores do not know the bias, and a key that is "
            "moved would get another one; use mode='recent' or budget=None");
    }
    if (config_.mode == Mode::per_head &&
        std::any_of(view_.layers().begin(), view_.layers().end(),
                    [&](const KvLayer & layer) { return layer.n_head_kv != view_.layers()[0].n_head_kv; })) {
        throw UnsupportedModelError(
            "mode='per_head' needs the same number of KV heads in every layer; use per_layer_head");
    }
    if (needs_scores(config_.mode)) {
        scorer_ = std::make_unique<Scorer>(view_, std::move(stats), config_.score, graph_);
        for (const LayerStats & layer : scorer_->stats().layers) {
            shapes_.push_back({layer.n_head, layer.n_head_kv});
        }
    } else {
        for (const KvLayer & layer : view_.layers()) {
            shapes_.push_back({layer.n_head_kv, layer.n_head_kv});
        }
    }
    if (const std::vector<std::string> missing = missing_operations(nullptr); !missing.empty()) {
        throw ContextError(
            "eviction needs an operation that a device lacks: " + missing[0] +
            "; use other cache types (type_k, type_v), fewer layers on that device (n_gpu_layers), or budget=None");
    }
}

std::vector<std::string> Controller::missing_operations(ggml_backend_dev_t device) {
    std::vector<std::string> missing;
    if (scorer_) {
        missing = scorer_->missing_operations(device);
    }
    if (moves_rows(config_.mode)) {
        const std::vector<std::string> moves = missing_moves(view_, graph_, device);
        missing.insert(missing.end(), moves.begin(), moves.end());
    }
    return missing;
}

bool Controller::is_due(int32_t seq) const {
    return view_.n_used(seq) >= static_cast<uint32_t>(config_.budget + config_.interval);
}

OriginMap & Controller::origins(int32_t seq) {
    return origins_.try_emplace(seq, view_.n_cells(), view_.layers()).first->second;
}

void Controller::evict(int32_t seq, int32_t n_protected) {
    const std::vector<KvCell> cells = view_.cells(seq);
    const size_t n = cells.size();
    const size_t budget = static_cast<size_t>(config_.budget);
    if (n <= budget) {
        return;
    }
    const int32_t first_free = std::max(config_.n_sink, n_protected);
    std::vector<uint8_t> is_protected(n, 0);
    std::vector<KvCell> others;
    for (size_t i = 0; i < n; ++i) {
        // Below first_free nothing is ever evicted, so there positions are still those of the keys.
        is_protected[i] = cells[i].pos < first_free || i + config_.window >= n ? 1 : 0;
        if (!is_protected[i]) {
            others.push_back(cells[i]);
        }
    }
    const size_t n_all_protected = n - others.size();
    if (n_all_protected > budget) {
        throw BudgetError(std::to_string(n_all_protected) + " keys are protected, more than the budget of " +
                          std::to_string(budget));
    }
    OriginMap & origin = origins(seq);
    origin.sync(cells);
    const int32_t position = cells.back().pos + 1;
    evicted_at_[seq] = position;

    const uint32_t stream = view_.stream_of(seq);
    llama_synchronize(ctx_);  // our graphs run on backends of their own
    Scores scores;
    if (scorer_) {
        const Stopwatch watch(counters_.scoring_s);
        scores = scorer_->group(stream, others, position, n_threads_);
    }
    CompactionPlan plan;
    {
        const Stopwatch watch(counters_.selection_s);
        const uint64_t seed = config_.seed + 0x9E3779B97F4A7C15ULL * static_cast<uint64_t>(++n_evictions_of_[seq]);
        const Kept kept = with_protected(
            select(config_.mode, scores, shapes_, others.size(), budget - n_all_protected, seed, n_threads_),
            is_protected);
        if (is_recording_) {
            records_.push_back({seq, position, static_cast<int32_t>(n), config_.budget, origin.evicted(kept, cells)});
        }
        plan = plan_compaction(kept, cells);
    }
    {
        const Stopwatch watch(counters_.compaction_s);
        move_rows(view_, stream, plan, graph_);
        origin.apply(plan);
        std::vector<int32_t> freed;
        for (size_t i = 0; i < n; ++i) {
            if (plan.freed[i]) {
                freed.push_back(cells[i].pos);
            }
        }
        view_.remove(seq, freed);
    }
    ++counters_.n_evictions;
    counters_.n_tokens_evicted += static_cast<int64_t>(n - budget);
}

HeadScores Controller::scores(int32_t seq) {
    const std::vector<KvCell> cells = view_.cells(seq);
    if (!scorer_ || cells.empty()) {
        return {};
    }
    llama_synchronize(ctx_);
    return scorer_->score(view_.stream_of(seq), cells, cells.back().pos + 1);
}

void Controller::forget(int32_t seq) {
    origins_.erase(seq);
    n_evictions_of_.erase(seq);
    evicted_at_.erase(seq);
}

std::vector<uint8_t> Controller::save(int32_t seq) {
    OriginMap & origin = origins(seq);
    origin.sync(view_.cells(seq));
    const auto found = n_evictions_of_.find(seq);
    const int64_t n = found != n_evictions_of_.end() ? found->second : 0;
    const auto * first = reinterpret_cast<const uint8_t *>(&n);
    std::vector<uint8_t> bytes(first, first + sizeof n);
    origin.save(bytes);
    return bytes;
}

void Controller::load(int32_t seq, const std::vector<uint8_t> & bytes) {
    int64_t n = 0;
    if (bytes.size() < sizeof n) {
        throw DecodeError("the saved state is too short");
    }
    std::memcpy(&n, bytes.data(), sizeof n);
    forget(seq);
    origins(seq).load(bytes.data() + sizeof n, bytes.size() - sizeof n);
    if (n > 0) {
        n_evictions_of_[seq] = n;
        const std::vector<KvCell> cells = view_.cells(seq);
        evicted_at_[seq] = cells.empty() ? 0 : cells.back().pos + 1;  // at the latest
    }
}

void Controller::truncate(int32_t seq, int32_t n) { origins(seq).truncate(n); }

std::vector<int32_t> Controller::kept_positions(int32_t seq, size_t layer, size_t kv_head) {
    const std::vector<KvCell> cells = view_.cells(seq);
    OriginMap & origin = origins(seq);
    origin.sync(cells);
    return origin.kept(layer, kv_head, cells);
}

}  // namespace triattn
