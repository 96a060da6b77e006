#include "selector.h"

#include "errors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

namespace triattn {
namespace {

const std::pair<const char *, Mode> NAMES[] = {
    {"per_layer_head", Mode::per_layer_head}, {"per_head", Mode::per_head}, {"per_layer", Mode::per_layer},
    {"global", Mode::global},                 {"recent", Mode::recent},     {"random", Mode::random},
};

using Marks = std::vector<uint8_t>;

// The protected keys and the best of the others, n_keep in all.
Marks best(const float * scores, const Marks & is_protected, size_t n_keep) {
    const size_t n_protected = std::count(is_protected.begin(), is_protected.end(), 1);
    std::vector<size_t> others;
    for (size_t i = 0; i < is_protected.size(); ++i) {
        if (!is_protected[i]) {
            others.push_back(i);
        }
    }
    const size_t room = std::min(n_keep - n_protected, others.size());
    if (room < others.size()) {
        std::nth_element(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(room), others.end(), [&](size_t a, size_t b) {
            return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
        });
    }
    Marks kept = is_protected;
    for (size_t i = 0; i < room; ++i) {
        kept[others[i]] = 1;
    }
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

Mode mode_from_name(const std::string & name) {
    std::string known;
    for (const auto & [text, mode] : NAMES) {
        if (name == text) {
            return mode;
        }
        known += known.empty() ? text : std::string(", ") + text;
    }
    throw BudgetError("mode '" + name + "' is unknown; use one of " + known);
}

bool moves_rows(Mode mode) { return mode == Mode::per_layer_head || mode == Mode::per_head || mode == Mode::per_layer; }
bool needs_scores(Mode mode) { return moves_rows(mode) || mode == Mode::global; }

std::vector<float> group_scores(const std::vector<float> & scores, LayerShape shape, const std::vector<uint8_t> & is_protected) {
    const size_t n_keys = is_protected.size();
    const size_t group = static_cast<size_t>(shape.n_head / shape.n_head_kv);
    const double n_free = static_cast<double>(n_keys) - static_cast<double>(std::count(is_protected.begin(), is_protected.end(), 1));
    std::vector<float> result(shape.n_head_kv * n_keys, -std::numeric_limits<float>::infinity());
    for (size_t h = 0; h < static_cast<size_t>(shape.n_head); ++h) {
        const float * s = scores.data() + h * n_keys;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n_keys; ++i) {
            mean += is_protected[i] ? 0.0 : s[i];
        }
        mean /= std::max(n_free, 1.0);
        for (size_t i = 0; i < n_keys; ++i) {
            variance += is_protected[i] ? 0.0 : (s[i] - mean) * (s[i] - mean);
        }
        const double deviation = std::max(std::sqrt(variance / std::max(n_free, 1.0)), 1e-6);
        if (!std::isfinite(mean) || !std::isfinite(deviation)) {
            throw DecodeError("the score of a cached key is not finite: the cache or the statistics hold NaN or infinity");
        }
        float * out = result.data() + h / group * n_keys;
        for (size_t i = 0; i < n_keys; ++i) {
            out[i] = std::max(out[i], static_cast<float>((s[i] - mean) / deviation));
        }
    }
    return result;
}

Kept select(Mode mode, const Scores & scores, const std::vector<LayerShape> & shapes, const std::vector<uint8_t> & is_protected,
            size_t n_keep, uint64_t seed) {
    const size_t n_keys = is_protected.size();
    const size_t n_protected = std::count(is_protected.begin(), is_protected.end(), 1);
    if (n_protected > n_keep) {
        throw BudgetError(std::to_string(n_protected) + " keys are protected, more than the budget of " + std::to_string(n_keep));
    }
    if (!needs_scores(mode)) {
        return same_everywhere(best(control_scores(mode, n_keys, seed).data(), is_protected, n_keep), shapes);
    }
    if (scores.size() != shapes.size()) {
        throw StatsError("scores of " + std::to_string(scores.size()) + " layers, shapes of " + std::to_string(shapes.size()));
    }

    std::vector<std::vector<float>> grouped;  // [layer][kv_head*n_keys]
    for (size_t l = 0; l < shapes.size(); ++l) {
        if (scores[l].size() != shapes[l].n_head * n_keys) {
            throw StatsError("the scores of a layer have the wrong size");
        }
        grouped.push_back(group_scores(scores[l], shapes[l], is_protected));
    }

    Kept result(shapes.size());
    if (mode == Mode::per_layer_head) {
        for (size_t l = 0; l < shapes.size(); ++l) {
            for (int h = 0; h < shapes[l].n_head_kv; ++h) {
                result[l].push_back(best(grouped[l].data() + h * n_keys, is_protected, n_keep));
            }
        }
        return result;
    }
    if (mode == Mode::per_head) {
        for (const LayerShape & shape : shapes) {
            if (shape.n_head_kv != shapes[0].n_head_kv) {
                throw UnsupportedModelError("mode per_head needs the same number of KV heads in every layer; use per_layer_head");
            }
        }
        std::vector<double> sum(grouped[0].begin(), grouped[0].end());
        for (size_t l = 1; l < shapes.size(); ++l) {
            for (size_t i = 0; i < sum.size(); ++i) {
                sum[i] += grouped[l][i];
            }
        }
        const std::vector<float> means(sum.begin(), sum.end());  // a common factor does not change the order
        std::vector<Marks> kept;
        for (int h = 0; h < shapes[0].n_head_kv; ++h) {
            kept.push_back(best(means.data() + h * n_keys, is_protected, n_keep));
        }
        result.assign(shapes.size(), kept);
        return result;
    }
    // per_layer and global: the maximum over heads, of one layer or of all
    std::vector<float> overall(n_keys, -std::numeric_limits<float>::infinity());
    for (size_t l = 0; l < shapes.size(); ++l) {
        std::vector<float> maximum(n_keys, -std::numeric_limits<float>::infinity());
        for (size_t i = 0; i < grouped[l].size(); ++i) {
            maximum[i % n_keys] = std::max(maximum[i % n_keys], grouped[l][i]);
        }
        for (size_t i = 0; i < n_keys; ++i) {
            overall[i] = std::max(overall[i], maximum[i]);
        }
        if (mode == Mode::per_layer) {
            result[l].assign(shapes[l].n_head_kv, best(maximum.data(), is_protected, n_keep));
        }
    }
    return mode == Mode::per_layer ? result : same_everywhere(best(overall.data(), is_protected, n_keep), shapes);
}

}  // namespace triattn
