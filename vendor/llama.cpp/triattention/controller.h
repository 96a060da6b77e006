// Runs score -> select -> compact on a sequence of a context and keeps the books.
#pragma once

#include "compactor.h"
#include "device_graph.h"
#include "eviction_config.h"
#include "eviction_view.h"
#include "key_scorer.h"
#include "kv_memory.h"
#include "kv_view.h"
#include "origin_map.h"
#include "query_capture.h"
#include "scorer.h"
#include "selector.h"
#include "stats.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

struct llama_context;

namespace triattn {

class QuestionReader;

struct EvictionCounters {
    int64_t n_evictions = 0;       // times the cache was pruned
    int64_t n_tokens_evicted = 0;  // keys evicted per head, summed over evictions
    double scoring_s = 0, selection_s = 0, compaction_s = 0;

    // What has come since.
    void add(const EvictionCounters & now, const EvictionCounters & before);
};

// What one eviction took away.
struct EvictionRecord {
    int32_t seq = 0;
    int64_t position = 0;                                    // of the next token
    int32_t n_before = 0, n_after = 0;                       // keys per head
    std::vector<std::vector<std::vector<int32_t>>> evicted;  // [layer of the view][KV head]: positions, ascending
};

// It guards the context's memory, so that all who use the context stay within the budget.
class Controller : public MemoryGuard {
public:
    // Throws StatsError if the mode needs statistics that are missing or of another shape, BudgetError if it needs
    // flash attention and the context has none, ContextError if a device that holds a part of the cache lacks an
    // operation.
    Controller(llama_context * ctx, const EvictionConfig & config, Stats stats, int n_threads);

    // The operations of scoring and moving that `device` does not have, in words; null: the devices that hold the
    // layers.
    std::vector<std::string> missing_operations(ggml_backend_dev_t device);

    // Whether decoding has filled the sequence's cache by `interval` beyond the budget.
    bool is_due(int32_t seq) const;
    // Tokens that the sequence can read until it is due; where it is already, after the eviction that comes first.
    int32_t until_eviction(int32_t seq) const;
    bool has_room(int32_t seq, int32_t n_tokens) const {
        return view_.n_used(seq) + static_cast<uint32_t>(n_tokens) <= view_.n_cells();
    }

    // Prunes the sequence's cache to the budget, if it holds more. The first `n_protected` positions stay (at least
    // n_sink). What a chooser throws comes out of here, and BudgetError if its choice does not fit; then nothing has
    // changed.
    void evict(int32_t seq, int32_t n_protected);

    // How many first positions stay in the evictions that a step brings with it.
    void protect(int32_t seq, int32_t n) { n_protected_[seq] = n; }
    int32_t n_protected(int32_t seq) const;

    // From now on a step first prunes sequences that are due; without this only those that have no room for it.
    void evict_by_itself() { evicts_by_itself_ = true; }
    // A smaller budget for one sequence, until it is cleared. Throws BudgetError.
    void set_budget(int32_t seq, int32_t budget);
    int32_t budget(int32_t seq) const;

    // Takes in what the last step was looking for. Whatever changes the cache does it first.
    void finish_step();

    void before_step(const std::vector<StepToken> & tokens) override;
    void step_is_laid_out(const std::vector<StepToken> & tokens) override;
    bool may_remove(int32_t seq, int32_t begin, int32_t end) override;
    void was_removed(int32_t seq, int32_t begin, int32_t end) override;
    void was_copied(int32_t from, int32_t to) override;
    int32_t least_length(int32_t seq) const override;
    void context_ends() override;

    // What can be seen of a sequence's cache before an eviction. Valid until the cache changes.
    EvictionView view_of(int32_t seq, int32_t n_protected);

    // Looks at a second reading of a sequence's tokens from position `begin` on: between these, all of them are computed
    // once more in one step, behind the last one.
    void start_second_reading() { is_second_reading_ = true; }
    void stop_second_reading(int32_t seq, int32_t begin);

    // Whether keys are chosen for a question, once there is one.
    bool takes_questions() const { return key_scorer_ != nullptr; }
    KeyScorer * key_scorer() { return key_scorer_.get(); }
    // The question's queries as QuestionReader gives them, and how much further on in the sequence it stands. Empty
    // queries: no question any more.
    void set_question(int32_t seq, LayerQueries queries, int32_t further);

    // Has the standing questions of the config read, once, before the first scores; without this there are none. Nothing
    // happens in a mode that takes no questions. Throws BudgetError if a question is empty or too long.
    void read_standing_questions_with(std::function<QuestionReader &()> reader);

    // Scores of the sequence's keys, in the order of view().cells(seq), for the next position: of query heads, or of KV
    // heads in Mode::fitted; empty if the mode needs none.
    HeadScores scores(int32_t seq);

    // What is known of a sequence beside its cells: where its keys come from, and how often it was pruned. Throws
    // DecodeError if it does not fit the cells that are there.
    std::vector<uint8_t> save(int32_t seq) override;
    void load(int32_t seq, const std::vector<uint8_t> & bytes) override;

    // Whether an eviction has failed while rows moved: then the caches are of no use any more, until forget().
    bool is_half_moved() const { return is_half_moved_; }
    bool has_evicted(int32_t seq) const { return evicted_at_.count(seq) > 0; }
    // How many tokens of the sequence had been read at its last eviction.
    int64_t evicted_at(int32_t seq) const { return evicted_at_.at(seq); }
    // Whether evictions are noted down for take_records(), which hands them over once.
    void set_recording(bool on) { is_recording_ = on; }
    std::vector<EvictionRecord> take_records() { return std::exchange(records_, {}); }

    std::vector<int32_t> kept_positions(int32_t seq, size_t layer, size_t kv_head);
    const EvictionCounters & counters() const { return counters_; }
    EvictionCounters counters(int32_t seq) const;  // since it was empty
    const EvictionConfig & config() const { return config_; }
    const KvView & view() const { return view_; }

private:
    void forget(int32_t seq);
    OriginMap & origins(int32_t seq);

    const std::vector<uint8_t> & has_hadamard();

    // view_of for a chooser that does not read keys.
    EvictionView make_view(int32_t seq, int32_t n_protected);

    void prepare_key_scorer();

    // The keys that each head keeps.
    Kept choose(const EvictionView & view);
    Kept choose_by_scores(const EvictionView & view);
    Scores scores_of(const EvictionView & view, const std::vector<KvCell> & others);

    llama_context * ctx_;
    EvictionConfig config_;
    KvView view_;
    DeviceGraph graph_;
    int n_threads_;
    std::unique_ptr<Scorer> scorer_;               // as published
    std::unique_ptr<KeyScorer> key_scorer_;        // Mode::fitted
    std::unique_ptr<QueryCapture> capture_;        // with key_scorer_
    std::function<LayerQueries()> read_standing_;  // until they have been read
    std::vector<int32_t> observed_seqs_;  // of the wanted tokens of the step that is observed; -1: cleared since
    bool is_observing_ = false;
    bool is_second_reading_ = false;
    bool evicts_by_itself_ = false;
    std::vector<LayerShape> shapes_;
    std::optional<std::vector<uint8_t>> has_hadamard_;  // per layer, once it has been asked for
    std::map<int32_t, OriginMap> origins_;
    std::map<int32_t, EvictionCounters> counters_of_;  // what `random` draws depends on the number of evictions
    std::map<int32_t, int64_t> evicted_at_;
    std::map<int32_t, int32_t> n_protected_;
    std::map<int32_t, int32_t> budgets_;  // where they are not the one of config_
    EvictionCounters counters_;
    bool is_recording_ = false;
    bool is_half_moved_ = false;
    std::vector<EvictionRecord> records_;
};

}  // namespace triattn
