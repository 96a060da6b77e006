#include "query_sets.h"

#include "errors.h"
#include "hadamard.h"

#include <algorithm>
#include <complex>
#include <cstring>
#include <string>
#include <utility>

namespace triattn {

void append(LayerQueries & to, LayerQueries queries) {
    if (to.empty()) {
        to = std::move(queries);
        return;
    }
    for (size_t l = 0; l < queries.size(); ++l) {
        for (size_t r = 0; r < queries[l].size(); ++r) {
            QuerySet &all = to[l][r], &more = queries[l][r];
            all.positions.insert(all.positions.end(), more.positions.begin(), more.positions.end());
            all.rows.insert(all.rows.end(), more.rows.begin(), more.rows.end());
        }
    }
}

LayerQueries only(const LayerQueries & queries, const std::vector<uint8_t> & marks) {
    LayerQueries result;
    for (const std::vector<QuerySet> & layer : queries) {
        result.emplace_back();
        for (const QuerySet & set : layer) {
            QuerySet found;
            const size_t width = set.positions.empty() ? 0 : set.rows.size() / set.positions.size();
            for (size_t i = 0; i < set.positions.size(); ++i) {
                if (marks.at(i) != 0) {
                    const auto row = set.rows.begin() + static_cast<std::ptrdiff_t>(i * width);
                    found.positions.push_back(set.positions[i]);
                    found.rows.insert(found.rows.end(), row, row + static_cast<std::ptrdiff_t>(width));
                }
            }
            result.back().push_back(std::move(found));
        }
    }
    return result;
}

void keep_newest(LayerQueries & queries, size_t n) {
    for (std::vector<QuerySet> & layer : queries) {
        for (QuerySet & set : layer) {
            const size_t have = set.positions.size();
            if (have > n) {
                const size_t width = set.rows.size() / have;
                set.rows.erase(set.rows.begin(), set.rows.begin() + static_cast<std::ptrdiff_t>((have - n) * width));
                set.positions.erase(set.positions.begin(), set.positions.end() - static_cast<std::ptrdiff_t>(n));
            }
        }
    }
}

void cut_back(QuerySet & queries, int32_t n) {
    const auto end =
        std::find_if(queries.positions.begin(), queries.positions.end(), [&](int32_t p) { return p >= n; });
    const auto kept = static_cast<size_t>(end - queries.positions.begin());
    if (kept < queries.positions.size()) {
        queries.rows.resize(queries.rows.size() / queries.positions.size() * kept);
        queries.positions.resize(kept);
    }
}

void turn(LayerQueries & queries, int32_t by, const std::vector<std::vector<AttentionNode>> & readers,
          const std::vector<float> & hadamard, int size) {
    for (size_t l = 0; l < queries.size(); ++l) {
        const AttentionNode & node = readers[l].front();  // RoPE is the same for all that read a cache
        const RopeLayout & rope = node.rope;
        const auto d = static_cast<size_t>(rope.head_dim);
        const auto weight = [&](int dim) {
            return node.weights.empty() ? 1.0 : node.weights[static_cast<size_t>(dim)];
        };
        std::vector<std::complex<double>> turns;
        for (const double omega : rope.omega) {
            turns.push_back(std::polar(1.0, omega * by));
        }
        for (QuerySet & set : queries[l]) {
            for (size_t row = 0; row < set.rows.size(); row += d) {
                for (int f = 0; f < rope.n_bands(); ++f) {
                    const auto [a, b] = rope.dims(f);
                    if (rope.omega[static_cast<size_t>(f)] == 0.0 || weight(a) == 0.0 || weight(b) == 0.0) {
                        continue;  // a dimension of weight 0 meets nothing
                    }
                    float &x = set.rows[row + static_cast<size_t>(a)], &y = set.rows[row + static_cast<size_t>(b)];
                    const std::complex<double> q =
                        std::complex<double>(x / weight(a), y / weight(b)) * turns[static_cast<size_t>(f)];
                    x = static_cast<float>(q.real() * weight(a));
                    y = static_cast<float>(q.imag() * weight(b));
                }
            }
            if (node.hadamard) {
                apply_hadamard(set.rows, hadamard, size);
            }
            for (int32_t & position : set.positions) {
                position += by;
            }
        }
    }
}

void save_queries(const LayerQueries & queries, std::vector<uint8_t> & bytes) {
    const uint64_t n_layers = queries.size();
    put(bytes, &n_layers, sizeof n_layers);
    for (const std::vector<QuerySet> & layer : queries) {
        const uint64_t n = layer.size();
        put(bytes, &n, sizeof n);
        for (const QuerySet & set : layer) {
            put_all(bytes, set.positions);
            put_all(bytes, set.rows);
        }
    }
}

LayerQueries load_queries(ByteReader & in, const std::vector<std::vector<AttentionNode>> & readers) {
    LayerQueries result;
    uint64_t n_layers = 0;
    in.get(&n_layers, sizeof n_layers);
    if (n_layers != 0 && n_layers != readers.size()) {
        throw DecodeError("the saved state does not fit this context: its queries are of " + std::to_string(n_layers) +
                          " layers, not of " + std::to_string(readers.size()));
    }
    for (uint64_t l = 0; l < n_layers; ++l) {
        uint64_t n = 0;
        in.get(&n, sizeof n);
        if (n != readers[l].size()) {
            throw DecodeError("the saved state does not fit this context: its queries are of other operations");
        }
        std::vector<QuerySet> layer(n);
        for (size_t r = 0; r < n; ++r) {
            QuerySet & set = layer[r];
            get_all(in, set.positions);
            get_all(in, set.rows);
            const auto width =
                static_cast<size_t>(readers[l][r].n_head) * static_cast<size_t>(readers[l][r].rope.head_dim);
            if (set.rows.size() != set.positions.size() * width) {
                throw DecodeError("the saved state does not fit this context: its queries have another size");
            }
        }
        result.push_back(std::move(layer));
    }
    return result;
}

}  // namespace triattn
