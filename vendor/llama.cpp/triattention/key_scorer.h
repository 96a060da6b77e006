// Scores keys by the attention that they are expected to get (fitted in calibration), that they got from the text's own
// queries, and that a question asks of them.
#pragma once

#include "attention.h"
#include "attention_probe.h"
#include "compactor.h"
#include "device_graph.h"
#include "key_score_options.h"
#include "kv_view.h"
#include "origin_map.h"
#include "selector.h"
#include "stats.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace triattn {

// The score of a key is (expected + standing_weight * foreseen + question_weight * asked) * norm^value_power +
// received_weight * received * norm^received_value_power, where
// - expected = exp(weights * key_features) is computed once, when the key is first seen here;
// - received is the most attention that it got from the text's own queries, the maximum of what it got since the last
//   time and of what was known before, which decays;
// - asked is the most attention that it, or a key beside it, gets from the question's queries;
// - foreseen is the most attention that it, or a key beside it, gets from the queries of standing questions, and
//   question_foreseen times that from the question's: the sum over the retrieval heads, divided by their number and at
//   least by half the number of all heads. All of a token's keys get it, so that they stay or go together; those of other
//   heads a part of it. It is computed once, too. Retrieval heads are the KV heads whose first keys are expected to get
//   the most attention;
// - norm is that of the key's value, over the geometric mean of those of the head's first values.
// Expected, received and foreseen values travel with the rows.
class KeyScorer {
public:
    // `stats` may be null, if the fit is not used. Throws StatsError if they have no fitted weights or those of another
    // shape.
    KeyScorer(const KvView & view, const Stats * stats, const KeyScoreOptions & options, DeviceGraph & graph,
              int n_threads);

    std::vector<std::string> missing_operations(ggml_backend_dev_t device);

    // Only for tests: as on devices that need it.
    void read_keys_from(KeySource source) { source_ = source; }
    // Only for tests: keys that were read from the cache to get a score, of all sequences.
    int64_t n_entered() const { return n_entered_; }

    // Whether the queries of a token are wanted.
    bool wants(int32_t position) const {
        return options_.use_received && position % options_.stride == options_.stride - 1;
    }
    void add_queries(int32_t seq, LayerQueries queries);
    const std::vector<std::vector<AttentionNode>> & readers() const { return readers_; }
    // Those of the standing questions, as read_standing_questions gives them; before the first update.
    void set_standing_queries(LayerQueries queries) { standing_ = std::move(queries); }
    const LayerQueries & standing_queries() const { return standing_; }
    // The question that keys are chosen for from now on; empty: none. Turned to its positions.
    void set_question(int32_t seq, LayerQueries queries);

    // Takes the queries of a second reading of the tokens from `begin` on to the last one before them, and puts the
    // attention that their keys got in place of what was expected. `cells` are all of the sequence, those of the second
    // reading too.
    void take_second_reading(int32_t seq, const std::vector<KvCell> & cells, int32_t begin,
                             const LayerQueries & queries);

    // The scores of a sequence's keys, [layer][n_head_kv, n_cells], after the queries added since the last time. Brings
    // all books up to date.
    Scores update(int32_t seq, const std::vector<KvCell> & cells, const OriginMap & origins);

    // The same without a trace.
    Scores peek(int32_t seq, const std::vector<KvCell> & cells, const OriginMap & origins);

    // What is known of the text's own queries and of the question: what the next update will use.
    const LayerQueries & queries(int32_t seq) { return sequence(seq).queries; }
    const LayerQueries & question(int32_t seq) { return sequence(seq).question; }

    void apply(int32_t seq, const CompactionPlan & plan);
    void forget(int32_t seq) { sequences_.erase(seq); }
    void truncate(int32_t seq, int32_t n);

    // All that is known of a sequence with these cells as bytes, and back: the same keys may then lie in other cells.
    void save(int32_t seq, std::vector<uint8_t> & bytes, const std::vector<KvCell> & cells);
    void load(int32_t seq, ByteReader & in, const std::vector<KvCell> & cells);

    // All of `from` that is known, for a copy of it, cell by cell.
    void copy(int32_t from, int32_t to) { sequences_[to] = sequence(from); }

private:
    struct Worth { float expected = 0, norm = 1, received = 0, foreseen = 0; };
    struct Sequence {
        std::vector<std::vector<std::vector<Worth>>> keys;  // [layer][kv_head][slot]
        std::vector<std::vector<float>> usual_norms;        // [layer][kv_head]: their logarithms; empty: no keys yet
        std::vector<std::vector<uint8_t>> retrieves;        // [layer][kv_head]; empty: no keys yet, or no questions
        SeenCells seen;
        int32_t reread_pos = 0;   // keys before it have been read a second time
        int32_t updated_pos = 0;  // of the last update
        LayerQueries queries, question;
    };

    Sequence & sequence(int32_t seq);
    // `asked` is what `ask` gives for these cells.
    void enter(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells,
               const std::vector<std::vector<float>> & asked);
    // The most attention of each key, [layer][n_head_kv, n_cells], from the question's queries (empty: there are none)
    // and from those of standing questions, in layers with retrieval heads.
    std::vector<std::vector<float>> ask(const Sequence & of, uint32_t stream, const std::vector<KvCell> & cells) const;
    std::vector<std::vector<float>> ask_standing(const Sequence & of, uint32_t stream,
                                                 const std::vector<KvCell> & cells) const;
    void choose_retrieval_heads(Sequence & of, const std::vector<KvCell> & fresh);
    void foresee(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells, const std::vector<KvCell> & fresh,
                 const std::vector<std::vector<float>> & asked);
    void receive(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells, int32_t n_new);

    const KvView & view_;
    std::vector<std::vector<AttentionNode>> readers_;  // of each layer
    std::vector<std::vector<float>> weights_;          // of each layer: LayerStats::fit
    KeyScoreOptions options_;
    DeviceGraph & graph_;
    int n_threads_;
    int64_t n_entered_ = 0;
    KeySource source_;
    LayerQueries standing_;
    std::map<int32_t, Sequence> sequences_;
};

}  // namespace triattn
