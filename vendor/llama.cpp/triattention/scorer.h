// Scores cached keys by the attention that they can expect from future queries (TriAttention, arXiv 2604.04921).
#pragma once

#include "attention_probe.h"
#include "device_graph.h"
#include "kv_view.h"
#include "selector.h"
#include "stats.h"

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

// Future distances from 1 to 65536, eight to an octave. The published code takes the 17 powers of two among them; with
// so few, the mean over distances is still mostly chance in the fast bands, and what is kept is measurably worse
// (docs/results.md).
std::vector<int32_t> default_offsets();

struct ScoreOptions {
    std::vector<int32_t> offsets = default_offsets();
    bool use_trig = true;  // for ablations
    bool use_norm = true;
    bool use_unrotated = true;  // count bands that RoPE does not rotate
};

// Scores of query heads: scores[layer][(head*n_keys) + key]; layers and heads in the order of Stats.
using HeadScores = std::vector<std::vector<float>>;

// mean over offsets of exp(i * omega * offset), times RoPE's scale: all that offsets contribute, whatever the position.
// [n_bands]
std::vector<std::complex<double>> offset_means(const LayerStats & layer, const ScoreOptions & options);

// The one query that stands for all future ones: mean over offsets of RoPE(centre, position + offset). [n_head,
// head_dim]
std::vector<float> synthetic_query(const LayerStats & layer, int64_t position,
                                   const std::vector<std::complex<double>> & means);

// Weights of |k_f| in S_norm: (E|q_f| - |E[q_f]|), times RoPE's scale. [n_head, head_dim/2]
std::vector<float> norm_weights(const LayerStats & layer, const ScoreOptions & options);

class Scorer {
public:
    // `stats` must have exactly the layers of the view, with the same shapes; throws StatsError. How keys are rotated
    // is read from the context: its frequencies may be others than those of calibration (a user's overrides, LongRoPE's
    // two sets), which the statistics, of queries before RoPE, do not depend on. Throws UnsupportedModelError where it
    // cannot be read.
    Scorer(const KvView & view, Stats stats, ScoreOptions options, DeviceGraph & graph);

    // Scores of the keys in `cells` of one stream for a next query at `position`.
    HeadScores score(uint32_t stream, const std::vector<KvCell> & cells, int64_t position);

    // The same as `select` takes them. Where keys lie on a device, it brings query heads together as well, so that what
    // is read back from it is as small as can be.
    Scores group(uint32_t stream, const std::vector<KvCell> & cells, int64_t position, int n_threads);

    // As DeviceGraph has it; for a device other than those of the cache, the graph is the one that any device runs.
    std::vector<std::string> missing_operations(ggml_backend_dev_t device);

    const Stats & stats() const { return stats_; }

private:
    enum class Form { of_query_heads, grouped_on_devices, grouped_anywhere };

    struct Output {
        ggml_tensor * tensor;
        bool is_grouped;
    };

    void adopt_rope(const std::vector<AttentionNode> & nodes);
    std::vector<Output> build(uint32_t stream, const std::vector<KvCell> & cells, int64_t position, Form form);

    const KvView & view_;
    Stats stats_;  // with the context's RoPE
    ScoreOptions options_;
    DeviceGraph & graph_;
    std::vector<uint8_t> hadamard_;            // per layer: whether its keys are multiplied by the view's k_rotation()
    std::vector<std::vector<float>> weights_;  // per layer: AttentionNode::weights
    std::vector<std::vector<std::complex<double>>> offset_means_;  // per layer
    std::vector<std::vector<float>> norm_weights_;
};

// The same graph for keys given from the host, `keys` [n_keys, n_head_kv, head_dim] after RoPE: for tests and research.
// `on_host` takes the short cut for keys in host memory, else the graph is the one that any device runs.
// Returns [n_head, n_keys].
std::vector<float> score_keys(const LayerStats & layer, const std::vector<float> & keys, int64_t n_keys,
                              int64_t position, const ScoreOptions & options, bool on_host);

// group_scores by the graph that devices run, on the CPU: [n_head_kv, n_keys].
std::vector<float> group_scores_by_graph(const std::vector<float> & scores, size_t n_keys, LayerShape shape);

}  // namespace triattn
