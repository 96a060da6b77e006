// Scores cached keys by the attention that they can expect from future queries (TriAttention, arXiv 2604.04921).
#pragma once

#include "device_graph.h"
#include "kv_view.h"
#include "stats.h"

#include <cstdint>
#include <vector>

namespace triattn {

struct ScoreOptions {
    std::vector<int32_t> offsets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
    bool use_trig = true;        // for ablations
    bool use_norm = true;
    bool use_unrotated = true;   // count bands that RoPE does not rotate
};

// scores[layer][(head*n_keys) + key]; layers and heads in the order of Stats.
using Scores = std::vector<std::vector<float>>;

// The one query that stands for all future ones: mean over offsets of RoPE(centre, position + offset). [n_head, head_dim]
std::vector<float> synthetic_query(const LayerStats & layer, int64_t position, const ScoreOptions & options);

// Weights of |k_f| in S_norm: (E|q_f| - |E[q_f]|), times RoPE's scale. [n_head, head_dim/2]
std::vector<float> norm_weights(const LayerStats & layer, const ScoreOptions & options);

class Scorer {
public:
    // `stats` must have exactly the layers of the view, with the same shapes; throws StatsError.
    Scorer(const KvView & view, const Stats & stats, ScoreOptions options, DeviceGraph & graph);

    // Scores of the keys in `cells` of one stream for a next query at `position`.
    Scores score(uint32_t stream, const std::vector<KvCell> & cells, int64_t position);

private:
    const KvView & view_;
    const Stats  & stats_;
    ScoreOptions   options_;
    DeviceGraph  & graph_;
    std::vector<std::vector<float>> norm_weights_;
};

// The same graph for keys given from the host, `keys` [n_keys, n_head_kv, head_dim] after RoPE: for tests and research.
// `on_host` takes the short cut for keys in host memory, else the graph is the one that any device runs.
// Returns [n_head, n_keys].
std::vector<float> score_keys(const LayerStats & layer, const std::vector<float> & keys, int64_t n_keys, int64_t position,
                              const ScoreOptions & options, bool on_host);

}  // namespace triattn
