#include "compactor.h"

#include "errors.h"

#include <algorithm>
#include <cstring>
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
    ggml_tensor * view =
        ggml_view_3d(ctx, storage, head_dim, storage->ne[1], n_head_kv, storage->nb[1], bytes, stream * storage->nb[2]);
    view->type = GGML_TYPE_F32;
    view->ne[0] = static_cast<int64_t>(bytes / 4);
    view->nb[0] = 4;
    view->nb[3] = view->nb[2] * n_head_kv;
    return view;
}

// A set of cells that is emptied at no cost.
class CellSet {
public:
    explicit CellSet(uint32_t n_cells) : marks_(n_cells, 0) {}
    void clear() { ++mark_; }
    bool contains(uint32_t slot) const { return marks_[slot] == mark_; }
    // Returns whether the cell is new in the set.
    bool insert(uint32_t slot) {
        const bool is_new = !contains(slot);
        marks_[slot] = mark_;
        return is_new;
    }

private:
    std::vector<uint32_t> marks_;
    uint32_t mark_ = 1;
};

// The moves of one layer as two rectangles [n_head_kv][n]. Heads with fewer moves copy cells that will be freed onto
// themselves: other cells than those they move from, so that no row is written twice.
struct Rectangle {
    int64_t n = 0;
    std::vector<int32_t> from;
    std::vector<int64_t> to;
};

Rectangle make_rectangle(const std::vector<std::vector<Move>> & heads, CellSet & seen) {
    // all cells that any head moves from will be freed
    std::vector<uint32_t> sources;
    size_t n = 0;
    seen.clear();
    for (const auto & moves : heads) {
        n = std::max(n, moves.size());
        for (const Move & move : moves) {
            if (seen.insert(move.from)) {
                sources.push_back(move.from);
            }
        }
    }
    Rectangle result;
    result.n = static_cast<int64_t>(n);
    for (const auto & moves : heads) {
        seen.clear();
        for (const Move & move : moves) {
            seen.insert(move.from);
            result.from.push_back(static_cast<int32_t>(move.from));
            result.to.push_back(move.to);
        }
        size_t missing = n - moves.size();
        for (auto slot = sources.begin(); missing > 0; ++slot) {
            if (!seen.contains(*slot)) {
                result.from.push_back(static_cast<int32_t>(*slot));
                result.to.push_back(*slot);
                --missing;
            }
        }
    }
    return result;
}

// For rows that are not made of whole words (blocks of 25 bytes, or an odd number of 18): through the host. The cells
// from the first to the last that a move touches are read and written at once, since a device takes long for each row.
void move_through_host(ggml_tensor * storage, int head_dim, uint32_t stream,
                       const std::vector<std::vector<Move>> & heads) {
    size_t first = static_cast<size_t>(storage->ne[1]), end = 0;
    for (const std::vector<Move> & moves : heads) {
        for (const Move & move : moves) {
            first = std::min<size_t>({first, move.from, move.to});
            end = std::max<size_t>({end, move.from + size_t{1}, move.to + size_t{1}});
        }
    }
    if (first >= end) {
        return;
    }
    const size_t row = storage->nb[1], bytes = row_bytes(storage, head_dim);
    const size_t offset = stream * storage->nb[2] + first * row;
    std::vector<uint8_t> cells((end - first) * row);
    ggml_backend_tensor_get(storage, cells.data(), offset, cells.size());
    for (size_t h = 0; h < heads.size(); ++h) {
        uint8_t * const head = cells.data() + h * bytes;
        for (const Move & move : heads[h]) {  // none goes where another comes from: that cell will be freed
            std::memcpy(head + (move.to - first) * row, head + (move.from - first) * row, bytes);
        }
    }
    ggml_backend_tensor_set(storage, cells.data(), offset, cells.size());
}

// Visits the keys that a head evicts, which are few.
template <typename Visit>
void for_each_evicted(const std::vector<uint8_t> & kept, const Visit & visit) {
    const uint8_t * const begin = kept.data();
    const uint8_t * const end = begin + kept.size();
    for (const uint8_t * next = begin; next != end; ++next) {
        next = static_cast<const uint8_t *>(std::memchr(next, 0, static_cast<size_t>(end - next)));
        if (next == nullptr) {
            return;
        }
        visit(static_cast<size_t>(next - begin));
    }
}

}  // namespace

CompactionPlan plan_compaction(const Kept & kept, const std::vector<KvCell> & cells) {
    const size_t n = cells.size();
    std::vector<uint32_t> evictions(n, 0);
    for (const auto & layer : kept) {
        for (const auto & head : layer) {
            if (head.size() != n) {
                throw Error("internal: marks of another number of keys");
            }
            for_each_evicted(head, [&](size_t i) { ++evictions[i]; });
        }
    }
    const auto & first = kept.at(0).at(0);
    const size_t n_freed = n - static_cast<size_t>(std::count(first.begin(), first.end(), 1));

    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::nth_element(
        order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n_freed), order.end(),
        [&](size_t a, size_t b) { return evictions[a] != evictions[b] ? evictions[a] > evictions[b] : a < b; });
    order.resize(n_freed);
    std::sort(order.begin(), order.end());
    CompactionPlan plan;
    plan.freed.assign(n, 0);
    for (size_t i : order) {
        plan.freed[i] = 1;
    }

    for (const auto & layer : kept) {
        std::vector<std::vector<Move>> heads;
        for (const auto & head : layer) {
            std::vector<uint32_t> holes;
            for_each_evicted(head, [&](size_t i) {
                if (!plan.freed[i]) {
                    holes.push_back(cells[i].slot);
                }
            });
            std::vector<Move> moves;
            for (size_t i : order) {
                if (head[i]) {
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

bool moves_any(const std::vector<std::vector<Move>> & heads) {
    return std::any_of(heads.begin(), heads.end(), [](const std::vector<Move> & moves) { return !moves.empty(); });
}

// Rows of whole words; false: there are none to move.
bool build_moves(const KvView & view, uint32_t stream, const CompactionPlan & plan, DeviceGraph & graph) {
    ggml_context * ctx = graph.begin(2 * TENSORS_PER_COPY * view.layers().size() + 8);
    CellSet seen(view.n_cells());
    bool any = false;
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        const KvLayer & layer = view.layers()[l];
        if (!moves_any(plan.moves[l])) {
            continue;
        }
        const Rectangle rectangle = make_rectangle(plan.moves[l], seen);
        ggml_tensor * from = nullptr;
        ggml_tensor * to = nullptr;
        for (const Part & part : parts_of(layer)) {
            if (!has_word_rows(part.storage, part.head_dim)) {
                continue;
            }
            if (from == nullptr) {
                from = graph.input(rectangle.from.data(), GGML_TYPE_I32, rectangle.n, layer.n_head_kv);
                to = graph.input(rectangle.to.data(), GGML_TYPE_I64, rectangle.n, layer.n_head_kv);
            }
            ggml_tensor * words = word_view(ctx, part.storage, part.head_dim, layer.n_head_kv, stream);
            graph.expand(ggml_set_rows(ctx, words, ggml_get_rows(ctx, words, from), to), /*output*/ false,
                         part.storage);
            any = true;
        }
    }
    return any;
}

}  // namespace

void move_rows(const KvView & view, uint32_t stream, const CompactionPlan & plan, DeviceGraph & graph) {
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        if (!moves_any(plan.moves[l])) {
            continue;
        }
        if (view.v_transposed()) {
            throw BudgetError(
                "this mode moves rows of V, which needs flash attention; use mode='global' or flash_attn=True");
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
