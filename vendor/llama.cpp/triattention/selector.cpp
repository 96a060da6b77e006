#include "selector.h"

#include "errors.h"
#include "parallel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

namespace triattn {
namespace {

using Marks = std::vector<uint8_t>;

struct Moments {
    double mean;
    double deviation;
};

// Sums of differences from one of the values lose nothing in double precision; several sums at a time are what
// compilers vectorise.
Moments moments(const float * values, size_t n) {
    constexpr size_t LANES = 8;
    const double pivot = values[0];
    double sums[LANES] = {}, squares[LANES] = {};
    const auto add = [&](size_t lane, float value) {
        const double x = value - pivot;
        sums[lane] += x;
        squares[lane] += x * x;
    };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; ++lane) {
            add(lane, values[i + lane]);
        }
    }
    for (; i < n; ++i) {
        add(0, values[i]);
    }
    const double mean = std::accumulate(sums, sums + LANES, 0.0) / static_cast<double>(n);
    const double variance = std::accumulate(squares, squares + LANES, 0.0) / static_cast<double>(n) - mean * mean;
    return {pivot + mean, std::sqrt(std::max(variance, 0.0))};
}

// One number that orders keys by score, equal ones by age.
uint64_t rank(float score, size_t key) {
    uint32_t bits;
    score += 0.0f;  // there is one zero
    std::memcpy(&bits, &score, sizeof bits);
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(bits) << 32 | key;
}

// The n_keep best of n_keys.
Marks keep_best(const float * scores, size_t n_keys, size_t n_keep) {
    Marks kept(n_keys, 1);
    if (n_keep >= n_keys) {
        return kept;
    }
    std::vector<uint64_t> ranks(n_keys);
    for (size_t i = 0; i < n_keys; ++i) {
        ranks[i] = rank(scores[i], i);
    }
    const auto end_of_worst = ranks.begin() + static_cast<std::ptrdiff_t>(n_keys - n_keep);
    // an eviction drops a small part: one pass past a heap of the worst; where it drops much, that would be slower
    if (n_keys - n_keep < n_keys / 8) {
        std::partial_sort(ranks.begin(), end_of_worst, ranks.end());
    } else {
        std::nth_element(ranks.begin(), end_of_worst, ranks.end());
    }
    std::for_each(ranks.begin(), end_of_worst, [&](uint64_t worst) { kept[static_cast<uint32_t>(worst)] = 0; });
    return kept;
}

Kept same_everywhere(const Marks & kept, const std::vector<LayerShape> & shapes) {
    Kept result;
    for (const LayerShape & shape : shapes) {
        result.emplace_back(shape.n_head_kv, kept);
    }
    return result;
}

// Scores that stand for "newer is better", or for nothing at all.
std::vector<float> control_scores(Mode mode, size_t n_keys, uint64_t seed) {
    std::vector<float> scores(n_keys);
    if (mode == Mode::recent) {
        std::iota(scores.begin(), scores.end(), 0.0f);
        return scores;
    }
    // The engine's raw numbers are the same with every standard library; distributions are not.
    std::mt19937_64 engine(seed);
    for (float & score : scores) {
        score = static_cast<float>(engine() >> 40);
    }
    return scores;
}

}  // namespace

void throw_not_finite() {
    throw DecodeError("the score of a cached key is not finite: the cache or the statistics hold NaN or infinity");
}

void group_scores(const float * scores, size_t n_keys, LayerShape shape, float * out) {
    const size_t group = static_cast<size_t>(shape.n_head / shape.n_head_kv);
    for (size_t h = 0; h < static_cast<size_t>(shape.n_head) && n_keys > 0; ++h, scores += n_keys) {
        const auto [mean, deviation] = moments(scores, n_keys);
        if (!std::isfinite(mean) || !std::isfinite(deviation)) {
            throw_not_finite();
        }
        const double scale = 1.0 / std::max(deviation, LEAST_DEVIATION);
        float * best = out + h / group * n_keys;
        const bool is_first = h % group == 0;
        for (size_t i = 0; i < n_keys; ++i) {
            const auto z = static_cast<float>((scores[i] - mean) * scale);
            best[i] = is_first ? z : std::max(best[i], z);
        }
    }
}

Kept select(Mode mode, const Scores & scores, const std::vector<LayerShape> & shapes, size_t n_keys, size_t n_keep,
            uint64_t seed, int n_threads) {
    if (mode == Mode::custom) {
        throw BudgetError("mode 'custom' asks a chooser and has no choice of its own");
    }
    const auto best_of = [&](const float * values) { return keep_best(values, n_keys, n_keep); };
    if (!needs_scores(mode)) {
        return same_everywhere(best_of(control_scores(mode, n_keys, seed).data()), shapes);
    }
    if (scores.size() != shapes.size()) {
        throw StatsError("scores of " + std::to_string(scores.size()) + " layers, shapes of " +
                         std::to_string(shapes.size()));
    }
    for (size_t l = 0; l < shapes.size(); ++l) {
        if (scores[l].size() != shapes[l].n_head_kv * n_keys) {
            throw StatsError("the scores of a layer have the wrong size");
        }
    }
    if (shapes.empty()) {
        return {};
    }
    Kept result(shapes.size());
    if (mode == Mode::per_layer_head || mode == Mode::fitted) {
        parallel_for(shapes.size(), threads_for(shapes.size() * scores[0].size(), n_threads), [&](size_t l) {
            for (int h = 0; h < shapes[l].n_head_kv; ++h) {
                result[l].push_back(best_of(scores[l].data() + h * n_keys));
            }
        });
        return result;
    }
    if (mode == Mode::per_head) {
        for (const LayerShape & shape : shapes) {
            if (shape.n_head_kv != shapes[0].n_head_kv) {
                throw UnsupportedModelError(
                    "mode per_head needs the same number of KV heads in every layer; use per_layer_head");
            }
        }
        std::vector<double> sum(scores[0].begin(), scores[0].end());
        for (size_t l = 1; l < shapes.size(); ++l) {
            for (size_t i = 0; i < sum.size(); ++i) {
                sum[i] += scores[l][i];
            }
        }
        const std::vector<float> means(sum.begin(), sum.end());  // a common factor does not change the order
        std::vector<Marks> kept;
        for (int h = 0; h < shapes[0].n_head_kv; ++h) {
            kept.push_back(best_of(means.data() + h * n_keys));
        }
        result.assign(shapes.size(), kept);
        return result;
    }
    // per_layer and global: the maximum over heads, of one layer or of all
    std::vector<float> overall(n_keys, -std::numeric_limits<float>::infinity());
    for (size_t l = 0; l < shapes.size(); ++l) {
        std::vector<float> maximum(n_keys, -std::numeric_limits<float>::infinity());
        for (size_t i = 0; i < scores[l].size(); ++i) {
            maximum[i % n_keys] = std::max(maximum[i % n_keys], scores[l][i]);
        }
        for (size_t i = 0; i < n_keys; ++i) {
            overall[i] = std::max(overall[i], maximum[i]);
        }
        if (mode == Mode::per_layer) {
            result[l].assign(shapes[l].n_head_kv, best_of(maximum.data()));
        }
    }
    return mode == Mode::per_layer ? result : same_everywhere(best_of(overall.data()), shapes);
}

Kept with_protected(const Kept & kept, const std::vector<uint8_t> & is_protected) {
    Kept result;
    for (const auto & layer : kept) {
        result.emplace_back();
        for (const Marks & head : layer) {
            Marks all(is_protected.size(), 1);
            auto next = head.begin();
            for (size_t i = 0; i < all.size(); ++i) {
                if (!is_protected[i]) {
                    all[i] = *next++;
                }
            }
            result.back().push_back(std::move(all));
        }
    }
    return result;
}

}  // namespace triattn
