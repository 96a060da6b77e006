// What questions, standing ones and the caller's, ask of the keys.
#include "attention_spread.h"
#include "key_scorer.h"
#include "query_sets.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace triattn {

// Heads of which keys expect the same attention, as all do without a fit, are all in or all out.
void KeyScorer::choose_retrieval_heads(Sequence & of, const std::vector<KvCell> & fresh) {
    std::vector<double> all;  // of each head what its keys expect together, layer by layer
    for (const std::vector<std::vector<Worth>> & layer : of.keys) {
        for (const std::vector<Worth> & head : layer) {
            all.push_back(std::accumulate(fresh.begin(), fresh.end(), 0.0, [&](double sum, const KvCell & cell) {
                return sum + head[cell.slot].expected;
            }));
        }
    }
    std::vector<double> sorted = all;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const auto share = static_cast<size_t>(std::lround(options_.retrieval_share * static_cast<double>(all.size())));
    const size_t n = std::max(share, static_cast<size_t>(options_.least_retrieval_heads));
    const double least = sorted[std::min(n, sorted.size()) - 1];
    auto next = all.begin();
    for (const std::vector<std::vector<Worth>> & layer : of.keys) {
        of.retrieves.emplace_back(layer.size());
        for (uint8_t & retrieves : of.retrieves.back()) {
            retrieves = *next++ >= least;
        }
    }
}

std::vector<std::vector<float>> KeyScorer::ask(const Sequence & of, uint32_t stream,
                                               const std::vector<KvCell> & cells) const {
    return of.question.empty() ? std::vector<std::vector<float>>()
                               : most_attention(graph_, view_, stream, cells, readers_, of.question, source_);
}

std::vector<std::vector<float>> KeyScorer::ask_standing(const Sequence & of, uint32_t stream,
                                                        const std::vector<KvCell> & cells) const {
    LayerQueries queries = standing_;
    for (size_t l = 0; l < queries.size(); ++l) {
        if (std::find(of.retrieves[l].begin(), of.retrieves[l].end(), 1) == of.retrieves[l].end()) {
            queries[l].clear();  // nobody looks at what it would find
        }
    }
    turn(queries, cells.back().pos + STANDING_AHEAD, readers_, view_.k_rotation(), view_.k_rotation_size());
    return most_attention(graph_, view_, stream, cells, readers_, queries, source_);
}

// The newest cells are `fresh`. The keys just before them gain from what stands beside them, too.
void KeyScorer::foresee(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells,
                        const std::vector<KvCell> & fresh, const std::vector<std::vector<float>> & asked) {
    const bool has_question = !asked.empty() && options_.question_foreseen > 0;
    if (options_.standing_weight == 0.0 || (standing_.empty() && !has_question)) {
        return;
    }
    if (of.retrieves.empty()) {
        choose_retrieval_heads(of, fresh);
    }
    const int32_t forward =
        has_question ? std::max(options_.spread_forward, options_.question_forward) : options_.spread_forward;
    const int32_t begin = fresh.front().pos - forward;
    const auto first = std::find_if(cells.begin(), cells.end(), [&](const KvCell & cell) { return cell.pos >= begin; });
    const auto skipped = static_cast<size_t>(first - cells.begin());
    std::vector<int32_t> positions;  // the newest keys have not been moved
    for (auto cell = first; cell != cells.end(); ++cell) {
        positions.push_back(cell->pos);
    }
    std::vector<float> sum(positions.size());
    const auto add = [&](const std::vector<std::vector<float>> & found, int32_t reach, double weight) {
        for (size_t l = 0; l < of.keys.size(); ++l) {
            for (size_t head = 0; head < of.keys[l].size(); ++head) {
                if (!of.retrieves[l][head]) {
                    continue;
                }
                const float * values = found[l].data() + head * cells.size() + skipped;
                const std::vector<float> around = spread_attention(values, positions, options_.spread_back, reach);
                std::transform(sum.begin(), sum.end(), around.begin(), sum.begin(),
                               [&](float all, float one) { return all + static_cast<float>(weight) * one; });
            }
        }
    };
    if (!standing_.empty()) {
        add(ask_standing(of, stream, cells), options_.spread_forward, 1.0);
    }
    if (has_question) {
        add(asked, options_.question_forward, options_.question_foreseen);
    }
    size_t n_heads = 0, n_retrieval_heads = 0;
    for (const std::vector<uint8_t> & heads : of.retrieves) {
        n_heads += heads.size();
        n_retrieval_heads += static_cast<size_t>(std::count(heads.begin(), heads.end(), 1));
    }
    // a mean over half of all heads: one over few retrieval heads would count for too much
    const double divisor = std::max(static_cast<double>(n_retrieval_heads), static_cast<double>(n_heads) / 2);
    for (size_t l = 0; l < of.keys.size(); ++l) {
        for (size_t head = 0; head < of.keys[l].size(); ++head) {
            const double factor = (of.retrieves[l][head] ? 1.0 : options_.other_heads) / divisor;
            for (size_t i = 0; i < sum.size(); ++i) {
                float & foreseen = of.keys[l][head][first[static_cast<std::ptrdiff_t>(i)].slot].foreseen;
                foreseen = std::max(foreseen, static_cast<float>(factor * sum[i]));
            }
        }
    }
}

}  // namespace triattn
