#include "controller.h"

#include "attention_probe.h"
#include "errors.h"
#include "query_sets.h"
#include "standing_questions.h"

#include "llama.h"

#include <algorithm>
#include <chrono>
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

Controller::Controller(llama_context * ctx, const EvictionConfig & config, Stats stats, int n_threads)
    : ctx_(ctx), config_(config), view_(ctx), graph_(tensors_of(view_), n_threads), n_threads_(n_threads) {
    check(config_);
    if (moves_rows(config_.mode) && view_.v_transposed()) {
        throw BudgetError("mode='" + mode_name(config_.mode) +
                          "' moves values between cells, which needs flash attention, and this context has none; use "
                          "flash_attn=True or mode='global'");
    }
    std::vector<int32_t> n_head_kv;
    for (const KvLayer & layer : view_.layers()) {
        n_head_kv.push_back(layer.n_head_kv);
    }
    check_mode(config_.mode, n_head_kv, view_.has_alibi());
    if (config_.mode == Mode::fitted) {
        key_scorer_ = std::make_unique<KeyScorer>(view_, &stats, config_.key_score, graph_, n_threads);
        capture_ = std::make_unique<QueryCapture>(view_, key_scorer_->readers());
    } else if (needs_scores(config_.mode)) {
        scorer_ = std::make_unique<Scorer>(view_, std::move(stats), config_.score, graph_);
        for (const LayerStats & layer : scorer_->stats().layers) {
            shapes_.push_back({layer.n_head, layer.n_head_kv});
        }
    }
    if (!scorer_) {  // scores of KV heads, or none
        for (const KvLayer & layer : view_.layers()) {
            shapes_.push_back({layer.n_head_kv, layer.n_head_kv});
        }
    }
    if (config_.mode == Mode::custom) {
        has_hadamard();  // not in the middle of decoding
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
    if (key_scorer_) {
        missing = key_scorer_->missing_operations(device);
    }
    if (moves_rows(config_.mode)) {
        const std::vector<std::string> moves = missing_moves(view_, graph_, device);
        missing.insert(missing.end(), moves.begin(), moves.end());
    }
    return missing;
}

bool Controller::is_due(int32_t seq) const {
    return view_.n_used(seq) >= static_cast<uint32_t>(budget(seq) + config_.interval);
}

int32_t Controller::until_eviction(int32_t seq) const {
    const int32_t left = budget(seq) + config_.interval - static_cast<int32_t>(view_.n_used(seq));
    return left > 0 ? left : config_.interval;
}

OriginMap & Controller::origins(int32_t seq) {
    return origins_.try_emplace(seq, view_.n_cells(), view_.layers()).first->second;
}

const std::vector<uint8_t> & Controller::has_hadamard() {
    if (!has_hadamard_) {
        has_hadamard_ = probe_hadamard(view_);
    }
    return *has_hadamard_;
}

EvictionView Controller::view_of(int32_t seq, int32_t n_protected) {
    has_hadamard();
    return make_view(seq, n_protected);
}

EvictionView Controller::make_view(int32_t seq, int32_t n_protected) {
    EvictionView::Subject subject;
    subject.seq = seq;
    subject.cells = view_.cells(seq);
    const size_t n = subject.cells.size();
    for (size_t i = 0; i < n; ++i) {
        // Below n_protected nothing is ever evicted, so there positions are still those of the keys.
        const bool is_first = i < static_cast<size_t>(config_.n_sink) || subject.cells[i].pos < n_protected;
        subject.is_protected.push_back(is_first || i + config_.window >= n ? 1 : 0);
    }
    subject.n_keep = std::min(n, static_cast<size_t>(budget(seq)));
    if (has_hadamard_) {
        subject.has_hadamard = *has_hadamard_;
    }
    OriginMap & origin = origins(seq);
    origin.sync(subject.cells);
    subject.origins = &origin;
    return EvictionView(view_, std::move(subject));
}

Scores Controller::scores_of(const EvictionView & view, const std::vector<KvCell> & others) {
    const Stopwatch watch(counters_.scoring_s);
    if (scorer_) {
        return scorer_->group(view_.stream_of(view.seq()), others, view.position(), n_threads_);
    }
    if (!key_scorer_) {
        return {};
    }
    prepare_key_scorer();
    Scores scores = key_scorer_->update(view.seq(), view.cells(), origins(view.seq()));
    for (std::vector<float> & layer : scores) {
        size_t n = 0;
        for (size_t i = 0; i < layer.size(); ++i) {
            if (view.is_protected()[i % view.n_keys()] == 0) {
                layer[n++] = layer[i];
            }
        }
        layer.resize(n);
    }
    return scores;
}

void Controller::read_standing_questions_with(std::function<QuestionReader &()> reader) {
    if (!key_scorer_) {
        return;
    }
    const KeyScoreOptions & options = config_.key_score;
    std::vector<std::vector<llama_token>> questions =
        standing_question_tokens(llama_model_get_vocab(llama_get_model(ctx_)), options.standing_questions);
    if (options.standing_weight > 0) {
        read_standing_ = [reader = std::move(reader), questions = std::move(questions)] {
            return read_standing_questions(reader(), questions);
        };
    }
}

// Not earlier: a text that fits the budget needs no standing questions.
void Controller::prepare_key_scorer() {
    if (read_standing_) {
        key_scorer_->set_standing_queries(read_standing_());
        read_standing_ = nullptr;
    }
}

Kept Controller::choose_by_scores(const EvictionView & view) {
    std::vector<KvCell> others;
    for (size_t i = 0; i < view.n_keys(); ++i) {
        if (view.is_protected()[i] == 0) {
            others.push_back(view.cells()[i]);
        }
    }
    const Scores scores = scores_of(view, others);
    const Stopwatch watch(counters_.selection_s);
    const size_t n_keep = view.n_keep() - (view.n_keys() - others.size());
    const int64_t number = counters(view.seq()).n_evictions + 1;
    const uint64_t seed = config_.seed + 0x9E3779B97F4A7C15ULL * static_cast<uint64_t>(number);
    return with_protected(select(config_.mode, scores, shapes_, others.size(), n_keep, seed, n_threads_),
                          view.is_protected());
}

Kept Controller::choose(const EvictionView & view) {
    if (config_.mode != Mode::custom) {
        return choose_by_scores(view);
    }
    const Stopwatch watch(counters_.selection_s);
    Kept kept = config_.chooser(view);
    check_choice(kept, view);
    return kept;
}

void Controller::evict(int32_t seq, int32_t n_protected) {
    finish_step();
    if (view_.n_used(seq) <= static_cast<uint32_t>(budget(seq))) {
        return;
    }
    const EvictionCounters before = counters_;
    const EvictionView view = make_view(seq, n_protected);
    const std::vector<KvCell> & cells = view.cells();
    const auto n_all_protected = std::count(view.is_protected().begin(), view.is_protected().end(), 1);
    if (static_cast<size_t>(n_all_protected) > view.n_keep()) {
        throw BudgetError(std::to_string(n_all_protected) + " keys are protected, more than the budget of " +
                          std::to_string(budget(seq)) + "; raise the budget, or protect fewer");
    }
    llama_synchronize(ctx_);  // our graphs run on backends of their own
    const Kept kept = choose(view);
    OriginMap & origin = origins(seq);
    CompactionPlan plan;
    {
        const Stopwatch watch(counters_.selection_s);
        if (is_recording_) {
            const auto n_before = static_cast<int32_t>(view.n_keys());
            records_.push_back({seq, view.position(), n_before, budget(seq), origin.evicted(kept, cells)});
        }
        plan = plan_compaction(kept, cells);
    }
    {
        const Stopwatch watch(counters_.compaction_s);
        is_half_moved_ = true;
        move_rows(view_, view_.stream_of(seq), plan, graph_);
        origin.apply(plan);
        if (key_scorer_) {
            key_scorer_->apply(seq, plan);
        }
        view_.remove(seq, cells, plan.freed);
        is_half_moved_ = false;
    }
    evicted_at_[seq] = view.position();
    ++counters_.n_evictions;
    counters_.n_tokens_evicted += static_cast<int64_t>(view.n_keys() - view.n_keep());
    counters_of_[seq].add(counters_, before);
}

HeadScores Controller::scores(int32_t seq) {
    const std::vector<KvCell> cells = view_.cells(seq);
    if ((!scorer_ && !key_scorer_) || cells.empty()) {
        return {};
    }
    llama_synchronize(ctx_);
    finish_step();
    if (key_scorer_) {
        prepare_key_scorer();
        OriginMap & origin = origins(seq);
        origin.sync(cells);
        return key_scorer_->peek(seq, cells, origin);
    }
    return scorer_->score(view_.stream_of(seq), cells, next_position(cells));
}

void Controller::stop_second_reading(int32_t seq, int32_t begin) {
    is_second_reading_ = false;
    if (std::exchange(is_observing_, false)) {
        prepare_key_scorer();
        key_scorer_->take_second_reading(seq, view_.cells(seq), begin, capture_->stop());
    }
}

void Controller::set_question(int32_t seq, LayerQueries queries, int32_t further) {
    turn(queries, further, key_scorer_->readers(), view_.k_rotation(), view_.k_rotation_size());
    key_scorer_->set_question(seq, std::move(queries));
}

std::vector<int32_t> Controller::kept_positions(int32_t seq, size_t layer, size_t kv_head) {
    const std::vector<KvCell> cells = view_.cells(seq);
    OriginMap & origin = origins(seq);
    origin.sync(cells);
    return origin.kept(layer, kv_head, cells);
}

}  // namespace triattn
