#include "key_scorer.h"

#include "attention_spread.h"
#include "errors.h"
#include "key_features.h"
#include "key_rows.h"
#include "parallel.h"
#include "query_sets.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

namespace triattn {
namespace {

constexpr double DECAY_TOKENS = 128.0;
constexpr size_t MAX_QUERIES = 128;

// std::pow, at once where there is nothing to compute: an eviction asks this of all keys.
double power(double base, double exponent) {
    return exponent == 0.0 ? 1.0 : exponent == 1.0 ? base : std::pow(base, exponent);
}

// Numbers of all heads, [layer][kv_head], or none.
template <typename Number>
void save_heads(const std::vector<std::vector<Number>> & numbers, std::vector<uint8_t> & bytes) {
    const auto is_there = static_cast<uint8_t>(!numbers.empty());
    put(bytes, &is_there, 1);
    for (const std::vector<Number> & heads : numbers) {
        put(bytes, heads.data(), heads.size() * sizeof(Number));
    }
}

template <typename Number>
std::vector<std::vector<Number>> load_heads(ByteReader & in, const KvView & view) {
    std::vector<std::vector<Number>> numbers;
    uint8_t is_there = 0;
    in.get(&is_there, 1);
    if (is_there != 0) {
        for (const KvLayer & layer : view.layers()) {
            std::vector<Number> & heads = numbers.emplace_back(static_cast<size_t>(layer.n_head_kv));
            in.get(heads.data(), heads.size() * sizeof(Number));
        }
    }
    return numbers;
}

}  // namespace

KeyScorer::KeyScorer(const KvView & view, const Stats * stats, const KeyScoreOptions & options, DeviceGraph & graph,
                     int n_threads)
    : view_(view),
      readers_(readers_of(view, probe_attention(view))),
      options_(options),
      graph_(graph),
      n_threads_(n_threads),
      source_(key_source(graph, view)) {
    if (options_.use_fit && stats == nullptr) {
        throw StatsError("mode 'fitted' needs statistics; calibrate the model");
    }
    for (const KvLayer & layer : view.layers()) {
        if (!options_.use_fit) {
            weights_.emplace_back();
            continue;
        }
        const auto found = std::find_if(stats->layers.begin(), stats->layers.end(),
                                        [&](const LayerStats & have) { return have.layer == layer.layer; });
        const std::string where = "layer " + std::to_string(layer.layer);
        if (found == stats->layers.end() || found->fit.empty()) {
            throw StatsError("the statistics have no fitted weights for " + where +
                             ", which mode 'fitted' needs; calibrate again, or use mode='per_layer_head'");
        }
        const size_t want = static_cast<size_t>(layer.n_head_kv) * n_key_features(layer.head_dim_k, layer.head_dim_v);
        if (found->fit.size() != want) {
            throw StatsError("the statistics have " + std::to_string(found->fit.size()) + " fitted weights for " +
                             where + ", the model needs " + std::to_string(want) + "; calibrate again");
        }
        weights_.push_back(found->fit);
    }
}

std::vector<std::string> KeyScorer::missing_operations(ggml_backend_dev_t device) {
    std::vector<std::string> missing = missing_attention(graph_, view_, source_, device);
    const std::vector<std::string> of_rows = missing_key_rows(graph_, view_, device);
    missing.insert(missing.end(), of_rows.begin(), of_rows.end());
    return missing;
}

KeyScorer::Sequence & KeyScorer::sequence(int32_t seq) {
    const auto [found, is_new] = sequences_.try_emplace(seq);
    Sequence & result = found->second;
    if (is_new) {
        for (const KvLayer & layer : view_.layers()) {
            result.keys.emplace_back(layer.n_head_kv, std::vector<Worth>(view_.n_cells()));
        }
    }
    return result;
}

void KeyScorer::add_queries(int32_t seq, LayerQueries queries) {
    LayerQueries & all = sequence(seq).queries;
    append(all, std::move(queries));
    keep_newest(all, MAX_QUERIES);  // a prompt that is read in full has many
}

void KeyScorer::set_question(int32_t seq, LayerQueries queries) { sequence(seq).question = std::move(queries); }

void KeyScorer::enter(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells,
                      const std::vector<std::vector<float>> & asked) {
    const std::vector<KvCell> fresh(of.seen.first_new(cells), cells.end());
    if (fresh.empty()) {
        return;
    }
    of.seen.take(cells);
    n_entered_ += static_cast<int64_t>(fresh.size());
    std::vector<Coordinates> positions;
    for (const KvCell & cell : fresh) {
        positions.push_back({cell.pos, cell.row, cell.column});  // a key that was never moved is its cell's own
    }
    const std::vector<KeyRows> rows = read_key_rows(graph_, view_, readers_, stream, fresh);
    const size_t n_numbers = rows[0].keys.size() * rows[0].keys[0].size() * rows.size();
    const bool is_first = of.usual_norms.empty();
    for (size_t l = 0; is_first && l < rows.size(); ++l) {
        of.usual_norms.emplace_back(rows[l].keys.size());
    }
    parallel_for(rows.size(), threads_for(n_numbers, n_threads_), [&](size_t l) {
        const RopeLayout & rope = readers_[l].front().rope;
        const std::vector<Turn> turns = turns_back(rope, positions);
        for (size_t head = 0; head < rows[l].keys.size(); ++head) {
            const std::vector<float> x = key_features(rope, rows[l].keys[head], rows[l].values[head], turns);
            const size_t width = x.size() / fresh.size();
            float & usual_norm = of.usual_norms[l][head];
            for (size_t i = 0; is_first && i < fresh.size(); ++i) {
                usual_norm += x[i * width + 1] / static_cast<float>(fresh.size());
            }
            for (size_t i = 0; i < fresh.size(); ++i) {
                const float * row = x.data() + i * width;
                Worth worth;
                if (options_.use_fit) {
                    const float * weights = weights_[l].data() + head * width;
                    const double sum = std::inner_product(row, row + width, weights, 0.0);
                    worth.expected = static_cast<float>(std::exp(std::min(sum, 0.0)));  // attention is at most 1
                    if (!std::isfinite(worth.expected)) {
                        throw_not_finite();
                    }
                }
                worth.norm = std::exp(row[1] - usual_norm);
                of.keys[l][head][fresh[i].slot] = worth;
            }
        }
    });
    foresee(of, stream, cells, fresh, asked);
}

void KeyScorer::receive(Sequence & of, uint32_t stream, const std::vector<KvCell> & cells, int32_t n_new) {
    const auto decay = static_cast<float>(std::pow(options_.decay, n_new / DECAY_TOKENS));
    const std::vector<std::vector<float>> now =
        most_attention(graph_, view_, stream, cells, readers_, of.queries, source_);
    for (size_t l = 0; l < of.keys.size(); ++l) {
        for (size_t head = 0; head < of.keys[l].size(); ++head) {
            for (size_t i = 0; i < cells.size(); ++i) {
                float & received = of.keys[l][head][cells[i].slot].received;
                received = std::max(decay * received, now[l][head * cells.size() + i]);
            }
        }
    }
    of.queries.clear();
}

void KeyScorer::take_second_reading(int32_t seq, const std::vector<KvCell> & cells, int32_t begin,
                                    const LayerQueries & queries) {
    if (queries.empty() || queries[0].empty() || queries[0][0].positions.empty()) {
        return;
    }
    Sequence & of = sequence(seq);
    const uint32_t stream = view_.stream_of(seq);
    const int32_t end = queries[0][0].positions.front();  // where the second reading begins
    const auto last = std::find_if(cells.begin(), cells.end(), [&](const KvCell & cell) { return cell.pos >= end; });
    const std::vector<KvCell> known(cells.begin(), last);
    enter(of, stream, known, ask(of, stream, known));
    const std::vector<std::vector<float>> found =
        most_attention(graph_, view_, stream, cells, readers_, queries, source_);
    for (size_t l = 0; l < of.keys.size(); ++l) {
        for (size_t head = 0; head < of.keys[l].size(); ++head) {
            for (auto cell = cells.begin(); cell != last; ++cell) {
                if (cell->pos >= begin) {
                    const float now = found[l][head * cells.size() + static_cast<size_t>(cell - cells.begin())];
                    float & expected = of.keys[l][head][cell->slot].expected;
                    expected = cell->pos >= of.reread_pos ? now : std::max(expected, now);
                }
            }
        }
    }
    of.reread_pos = std::max(of.reread_pos, end);
}

Scores KeyScorer::update(int32_t seq, const std::vector<KvCell> & cells, const OriginMap & origins) {
    Sequence & of = sequence(seq);
    const uint32_t stream = view_.stream_of(seq);
    const size_t n = cells.size();
    const int32_t end = cells.empty() ? of.updated_pos : cells.back().pos + 1;
    const int32_t n_new = end - std::exchange(of.updated_pos, end);
    const std::vector<std::vector<float>> asked = ask(of, stream, cells);
    enter(of, stream, cells, asked);
    receive(of, stream, cells, n_new);
    Scores scores;
    for (size_t l = 0; l < of.keys.size(); ++l) {
        scores.emplace_back(of.keys[l].size() * n);
        for (size_t head = 0; head < of.keys[l].size(); ++head) {
            float * out = scores.back().data() + head * n;
            if (!asked.empty()) {
                std::vector<int32_t> positions;
                for (const KvCell & cell : cells) {
                    positions.push_back(origins.at(l, head, cell.slot));
                }
                const std::vector<float> around = spread_attention(asked[l].data() + head * n, positions,
                                                                   options_.spread_back, options_.question_forward);
                std::copy(around.begin(), around.end(), out);
            }
            for (size_t i = 0; i < n; ++i) {
                const Worth & key = of.keys[l][head][cells[i].slot];
                const double wanted = key.expected + options_.standing_weight * key.foreseen +
                                      options_.question_weight * out[i] + LEAST_ATTENTION;
                out[i] = static_cast<float>(wanted * power(key.norm, options_.value_power) +
                                            options_.received_weight * key.received *
                                                power(key.norm, options_.received_value_power));
            }
        }
    }
    return scores;
}

Scores KeyScorer::peek(int32_t seq, const std::vector<KvCell> & cells, const OriginMap & origins) {
    const Sequence before = sequence(seq);
    Scores scores = update(seq, cells, origins);
    sequence(seq) = before;
    return scores;
}

void KeyScorer::apply(int32_t seq, const CompactionPlan & plan) {
    Sequence & of = sequence(seq);
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        for (size_t head = 0; head < plan.moves[l].size(); ++head) {
            for (const Move & move : plan.moves[l][head]) {
                of.keys[l][head][move.to] = of.keys[l][head][move.from];
            }
        }
    }
}

void KeyScorer::truncate(int32_t seq, int32_t n) {
    Sequence & of = sequence(seq);
    of.seen.truncate(n);
    of.reread_pos = std::min(of.reread_pos, n);
    of.updated_pos = std::min(of.updated_pos, n);
    for (auto & layer : of.queries) {
        for (QuerySet & set : layer) {
            cut_back(set, n);
        }
    }
}

void KeyScorer::save(int32_t seq, std::vector<uint8_t> & bytes, const std::vector<KvCell> & cells) {
    const Sequence & of = sequence(seq);
    for (const int32_t position : {of.seen.next_pos(), of.reread_pos, of.updated_pos}) {
        put(bytes, &position, sizeof position);
    }
    for (const auto & layer : of.keys) {
        for (const auto & head : layer) {
            for (const KvCell & cell : cells) {
                put(bytes, &head[cell.slot], sizeof head[0]);
            }
        }
    }
    save_heads(of.usual_norms, bytes);
    save_heads(of.retrieves, bytes);
    save_queries(of.queries, bytes);
    save_queries(of.question, bytes);
}

void KeyScorer::load(int32_t seq, ByteReader & in, const std::vector<KvCell> & cells) {
    forget(seq);
    Sequence & of = sequence(seq);
    int32_t next_pos = 0;
    for (int32_t * position : {&next_pos, &of.reread_pos, &of.updated_pos}) {
        in.get(position, sizeof *position);
    }
    of.seen.set_next_pos(next_pos);
    for (auto & layer : of.keys) {
        for (auto & head : layer) {
            for (const KvCell & cell : cells) {
                in.get(&head[cell.slot], sizeof head[0]);
            }
        }
    }
    of.usual_norms = load_heads<float>(in, view_);
    of.retrieves = load_heads<uint8_t>(in, view_);
    of.queries = load_queries(in, readers_);
    of.question = load_queries(in, readers_);
}

}  // namespace triattn
