#include "compactor.h"

#include "errors.h"

#include <algorithm>
#include <numeric>

namespace triattn {
namespace {

constexpr size_t TENSORS_PER_COPY = 8;

size_t row_bytes(const ggml_tensor * storage, int head_dim) { return ggml_row_size(storage->type, head_dim); }

// One head's row as 32-bit words, if it is a whole number of them and starts on one: [words, n_cells, n_head_kv].
// Copies of float32 "rows" exist on every backend and are exact for any bits.
bool has_word_rows(const ggml_tensor * storage, int head_dim) {
    return row_bytes(storage, head_dim) % 4 == 0 && storage->nb[1] % 4 == 0;
}

ggml_tensor * word_view(ggml_context * ctx, ggml_tensor * storage, int head_dim, int n_head_kv, uint32_t stream) {
    const size_t bytes = row_bytes(storage, head_dim);
    ggml_tensor * view = ggml_view_3d(ctx, storage, head_dim, storage->ne[1], n_head_kv, storage->nb[1], bytes, stream * storage->nb[2]);
    view->type  = GGML_TYPE_F32;
    view->ne[0] = static_cast<int64_t>(bytes / 4);
    view->nb[0] = 4;
    view->nb[3] = view->nb[2] * n_head_kv;
    return view;
}

// The moves of one layer as two rectangles [n_head_kv][n]. Heads with fewer moves copy cells that will be freed onto
// themselves: other cells than those they move from, so that no row is written twice.
struct Rectangle {
    int64_t n = 0;
    std::vector<int32_t> from;
    std::vector<int64_t> to;
};

Rectangle make_rectangle(const std::vector<std::vector<Move>> & heads, const std::vector<uint32_t> & freed_slots) {
    Rectangle result;
    for (const auto & moves : heads) {
        result.n = std::max(result.n, static_cast<int64_t>(moves.size()));
    }
    for (const auto & moves : heads) {
        std::vector<uint32_t> sources;
        for (const Move & move : moves) {
            result.from.push_back(static_cast<int32_t>(move.from));
            result.to.push_back(move.to);
            sources.push_back(move.from);
        }
        std::sort(sources.begin(), sources.end());
        int64_t missing = result.n - static_cast<int64_t>(moves.size());
        for (size_t i = 0; missing > 0; ++i) {
            const uint32_t slot = freed_slots.at(i);
            if (!std::binary_search(sources.begin(), sources.end(), slot)) {
                result.from.push_back(static_cast<int32_t>(slot));
                result.to.push_back(slot);
                --missing;
            }
        }
    }
    return result;
}

// For rows that are not made of whole words (an odd number of 18-byte blocks): through the host, row by row.
void move_through_host(ggml_tensor * storage, int head_dim, uint32_t stream, const std::vector<std::vector<Move>> & heads) {
    const size_t bytes = row_bytes(storage, head_dim);
    for (size_t h = 0; h < heads.size(); ++h) {
        const size_t base = stream * storage->nb[2] + h * bytes;
        std::vector<std::vector<uint8_t>> rows;
        for (const Move & move : heads[h]) {
            rows.emplace_back(bytes);
            ggml_backend_tensor_get(storage, rows.back().data(), base + move.from * storage->nb[1], bytes);
        }
        for (size_t i = 0; i < rows.size(); ++i) {
            ggml_backend_tensor_set(storage, rows[i].data(), base + heads[h][i].to * storage->nb[1], bytes);
        }
    }
}

}  // namespace

CompactionPlan plan_compaction(const Kept & kept, const std::vector<KvCell> & cells) {
    const size_t n = cells.size();
    std::vector<uint32_t> evictions(n, 0);
    for (const auto & layer : kept) {
        for (const auto & head : layer) {
            for (size_t i = 0; i < n; ++i) {
                evictions[i] += head.at(i) ? 0 : 1;
            }
        }
    }
    const auto & first = kept.at(0).at(0);
    const size_t n_freed = n - static_cast<size_t>(std::count(first.begin(), first.end(), 1));

    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n_freed), order.end(), [&](size_t a, size_t b) {
        return evictions[a] != evictions[b] ? evictions[a] > evictions[b] : a < b;
    });
    CompactionPlan plan;
    plan.freed.assign(n, 0);
    for (size_t i = 0; i < n_freed; ++i) {
        plan.freed[order[i]] = 1;
    }

    for (const auto & layer : kept) {
        std::vector<std::vector<Move>> heads;
        for (const auto & head : layer) {
            std::vector<uint32_t> holes;
            std::vector<Move> moves;
            for (size_t i = 0; i < n; ++i) {
                if (!plan.freed[i] && !head[i]) {
                    holes.push_back(cells[i].slot);
                }
            }
            for (size_t i = 0; i < n; ++i) {
                if (plan.freed[i] && head[i]) {
                    if (moves.size() == holes.size()) {
                        throw Error("internal: heads keep different numbers of keys");
                    }
                    moves.push_back({cells[i].slot, holes[moves.size()]});
                }
            }
            if (moves.size() != holes.size()) {
                throw Error("internal: heads keep different numbers of keys");
            }
            heads.push_back(std::move(moves));
        }
        plan.moves.push_back(std::move(heads));
    }
    return plan;
}

namespace {

struct Part {
    ggml_tensor * storage;
    int head_dim;
};

std::vector<Part> parts_of(const KvLayer & layer) {
    std::vector<Part> parts = {{layer.k, layer.head_dim_k}};
    if (layer.v != nullptr) {
        parts.push_back({layer.v, layer.head_dim_v});
    }
    return parts;
}

// The slots that any head moves from. All are cells that will be freed, so the others' serve to fill up a head's row of the rectangle.
std::vector<uint32_t> sources_of(const std::vector<std::vector<Move>> & heads) {
    std::vector<uint32_t> sources;
    for (const auto & moves : heads) {
        for (const Move & move : moves) {
            sources.push_back(move.from);
        }
    }
    std::sort(sources.begin(), sources.end());
    sources.erase(std::unique(sources.begin(), sources.end()), sources.end());
    return sources;
}

// Rows of whole words; false: there are none to move.
bool build_moves(const KvView & view, uint32_t stream, const CompactionPlan & plan, DeviceGraph & graph) {
    ggml_context * ctx = graph.begin(2 * TENSORS_PER_COPY * view.layers().size() + 8);
    bool any = false;
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        const KvLayer & layer = view.layers()[l];
        const std::vector<uint32_t> sources = sources_of(plan.moves[l]);
        if (sources.empty()) {
            continue;
        }
        const Rectangle rectangle = make_rectangle(plan.moves[l], sources);
        ggml_tensor * from = nullptr;
        ggml_tensor * to   = nullptr;
        for (const Part & part : parts_of(layer)) {
            if (!has_word_rows(part.storage, part.head_dim)) {
                continue;
            }
            if (from == nullptr) {
                from = graph.input(rectangle.from.data(), GGML_TYPE_I32, rectangle.n, layer.n_head_kv);
                to   = graph.input(rectangle.to.data(), GGML_TYPE_I64, rectangle.n, layer.n_head_kv);
            }
            ggml_tensor * words = word_view(ctx, part.storage, part.head_dim, layer.n_head_kv, stream);
            graph.expand(ggml_set_rows(ctx, words, ggml_get_rows(ctx, words, from), to), /*output*/ false, part.storage);
            any = true;
        }
    }
    return any;
}

}  // namespace

void move_rows(const KvView & view, uint32_t stream, const CompactionPlan & plan, DeviceGraph & graph) {
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        if (sources_of(plan.moves[l]).empty()) {
            continue;
        }
        if (view.v_transposed()) {
            throw BudgetError("this mode moves rows of V, which needs flash attention; use mode='global' or flash_attn=True");
        }
        for (const Part & part : parts_of(view.layers()[l])) {
            if (!has_word_rows(part.storage, part.head_dim)) {
                move_through_host(part.storage, part.head_dim, stream, plan.moves[l]);
            }
        }
    }
    if (build_moves(view, stream, plan, graph)) {
        graph.run();
    }
}

std::vector<std::string> missing_moves(const KvView & view, DeviceGraph & graph, ggml_backend_dev_t device) {
    CompactionPlan plan;
    for (const KvLayer & layer : view.layers()) {
        plan.moves.emplace_back(layer.n_head_kv, std::vector<Move>{{0, 1}});
    }
    build_moves(view, 0, plan, graph);
    return graph.missing_operations(device);
}

}  // namespace triattn
