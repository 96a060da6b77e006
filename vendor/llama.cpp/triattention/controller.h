// Runs score -> select -> compact on a sequence of a context and keeps the books.
#pragma once

#include "compactor.h"
#include "device_graph.h"
#include "eviction_config.h"
#include "eviction_view.h"
#include "key_scorer.h"
#include "kv_view.h"
#include "origin_map.h"
#include "query_capture.h"
#include "scorer.h"
#include "selector.h"
#include "stats.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

struct llama_context;

namespace triattn {

struct EvictionCounters {
    int64_t n_evictions = 0;       // times the cache was pruned
    int64_t n_tokens_evicted = 0;  // keys evicted per head, summed over evictions
    double scoring_s = 0, selection_s = 0, compaction_s = 0;
};

// What one eviction took away.
struct EvictionRecord {
    int32_t seq = 0;
    int64_t position = 0;                                    // of the next token
    int32_t n_before = 0, n_after = 0;                       // keys per head
    std::vector<std::vector<std::vector<int32_t>>> evicted;  // [layer of the view][KV head]: positions, ascending
};

class Controller {
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

    // Prunes the sequence's cache to the budget, if it holds more. The first `n_protected` positions stay (at least
    // n_sink). What a chooser throws comes out of here, and BudgetError if its choice does not fit; then nothing has
    // changed.
    void evict(int32_t seq, int32_t n_protected);

    // What can be seen of a sequence's cache before an eviction. Valid until the cache changes.
    EvictionView view_of(int32_t seq, int32_t n_protected);

    // Looks at a step that comes next: `positions` and `seqs` of its tokens, in the order in which they are computed.
    // Returns whether it is to be ended by stop_observing().
    bool start_observing(const std::vector<int32_t> & positions, std::vector<int32_t> seqs);
    void stop_observing();

    // Looks at a second reading of a sequence's tokens from position `begin` on: between these, all of them are computed
    // once more at `positions`, behind the last one.
    void start_second_reading(std::vector<int32_t> positions);
    void stop_second_reading(int32_t seq, int32_t begin);

    // Whether keys are chosen for a question, once there is one.
    bool takes_questions() const { return key_scorer_ != nullptr; }
    KeyScorer * key_scorer() { return key_scorer_.get(); }
    // The question's queries as QuestionReader gives them, and how much further on in the sequence it stands. Empty
    // queries: no question any more.
    void set_question(int32_t seq, LayerQueries queries, int32_t further);

    // Scores of the sequence's keys, in the order of view().cells(seq), for the next position: of query heads, or of KV
    // heads in Mode::fitted; empty if the mode needs none.
    HeadScores scores(int32_t seq);

    // What is known of a sequence beside its cells: where its keys come from, and how often it was pruned.
    std::vector<uint8_t> save(int32_t seq);
    void load(int32_t seq, const std::vector<uint8_t> & bytes);  // throws DecodeError

    // Whether an eviction has failed while rows moved: then the caches are of no use any more, until forget().
    bool is_half_moved() const { return is_half_moved_; }
    bool has_evicted(int32_t seq) const { return n_evictions_of_.count(seq) > 0; }
    // How many tokens of the sequence had been read at its last eviction.
    int64_t evicted_at(int32_t seq) const { return evicted_at_.at(seq); }
    void forget(int32_t seq);               // the sequence was cleared
    void truncate(int32_t seq, int32_t n);  // it was cut back to n positions, none before its last eviction

    // Whether evictions are noted down for take_records(), which hands them over once.
    void set_recording(bool on) { is_recording_ = on; }
    std::vector<EvictionRecord> take_records() { return std::exchange(records_, {}); }

    std::vector<int32_t> kept_positions(int32_t seq, size_t layer, size_t kv_head);
    const EvictionCounters & counters() const { return counters_; }
    const EvictionConfig & config() const { return config_; }
    const KvView & view() const { return view_; }

private:
    OriginMap & origins(int32_t seq);

    const std::vector<uint8_t> & has_hadamard();

    // view_of for a chooser that does not read keys.
    EvictionView make_view(int32_t seq, int32_t n_protected);

    // The keys that each head keeps.
    Kept choose(const EvictionView & view);
    Kept choose_by_scores(const EvictionView & view);
    Scores scores_of(const EvictionView & view, const std::vector<KvCell> & others);

    llama_context * ctx_;
    EvictionConfig config_;
    KvView view_;
    DeviceGraph graph_;
    int n_threads_;
    std::unique_ptr<Scorer> scorer_;         // as published
    std::unique_ptr<KeyScorer> key_scorer_;  // Mode::fitted
    std::unique_ptr<QueryCapture> capture_;  // with key_scorer_
    std::vector<int32_t> observed_seqs_;     // of the wanted tokens of the step that is observed
    std::vector<LayerShape> shapes_;
    std::optional<std::vector<uint8_t>> has_hadamard_;  // per layer, once it has been asked for
    std::map<int32_t, OriginMap> origins_;
    std::map<int32_t, int64_t> n_evictions_of_;  // per sequence: what `random` draws depend on
    std::map<int32_t, int64_t> evicted_at_;
    EvictionCounters counters_;
    bool is_recording_ = false;
    bool is_half_moved_ = false;
    std::vector<EvictionRecord> records_;
};

}  // namespace triattn
