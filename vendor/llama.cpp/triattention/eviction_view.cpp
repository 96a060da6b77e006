#include "eviction_view.h"

#include "errors.h"
#include "hadamard.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace triattn {
namespace {

// `n` numbers of a tensor's type as float32.
void to_floats(ggml_type type, const uint8_t * data, int64_t n, float * out) {
    if (type == GGML_TYPE_F32) {
        std::memcpy(out, data, static_cast<size_t>(n) * sizeof(float));
    } else {
        ggml_get_type_traits(type)->to_float(data, out, n);
    }
}

// Rows of a storage tensor in which each cell has one row: [n_head, n_keys, width].
std::vector<float> read_rows(const ggml_tensor * storage, uint32_t stream, const std::vector<KvCell> & cells,
                             int n_head, int width) {
    const auto [first, last] =
        std::minmax_element(cells.begin(), cells.end(), [](const auto & a, const auto & b) { return a.slot < b.slot; });
    std::vector<uint8_t> bytes((last->slot - first->slot + 1) * storage->nb[1]);
    ggml_backend_tensor_get(storage, bytes.data(), stream * storage->nb[2] + first->slot * storage->nb[1],
                            bytes.size());
    const size_t head_bytes = ggml_row_size(storage->type, width);
    std::vector<float> result(static_cast<size_t>(n_head) * cells.size() * static_cast<size_t>(width));
    float * out = result.data();
    for (int head = 0; head < n_head; ++head) {
        for (const KvCell & cell : cells) {
            const uint8_t * row = bytes.data() + (cell.slot - first->slot) * storage->nb[1];
            to_floats(storage->type, row + static_cast<size_t>(head) * head_bytes, width, out);
            out += width;
        }
    }
    return result;
}

// The same where each dimension has one row with a number for every cell (V without flash attention).
std::vector<float> read_columns(const ggml_tensor * storage, uint32_t stream, const std::vector<KvCell> & cells,
                                int n_head, int width) {
    const int64_t n_cells = storage->ne[1];
    const size_t row_bytes = ggml_row_size(storage->type, n_cells);
    std::vector<uint8_t> bytes(static_cast<size_t>(n_head * width) * row_bytes);
    ggml_backend_tensor_get(storage, bytes.data(), stream * storage->nb[2], bytes.size());
    std::vector<float> row(static_cast<size_t>(n_cells));
    std::vector<float> result(static_cast<size_t>(n_head * width) * cells.size());
    for (int head = 0; head < n_head; ++head) {
        for (int d = 0; d < width; ++d) {
            to_floats(storage->type, bytes.data() + static_cast<size_t>(head * width + d) * row_bytes, n_cells,
                      row.data());
            for (size_t i = 0; i < cells.size(); ++i) {
                result[(static_cast<size_t>(head) * cells.size() + i) * static_cast<size_t>(width) +
                       static_cast<size_t>(d)] = row[cells[i].slot];
            }
        }
    }
    return result;
}

std::string head_of_layer(size_t head, const KvLayer & layer) {
    return "head " + std::to_string(head) + " of layer " + std::to_string(layer.layer);
}

}  // namespace

std::vector<float> EvictionView::keys(size_t layer) const {
    const KvLayer & of = layers().at(layer);
    if (n_keys() == 0) {
        return {};
    }
    std::vector<float> result = read_rows(of.k, cache_->stream_of(seq()), cells(), of.n_head_kv, of.head_dim_k);
    if (subject_.has_hadamard.at(layer) != 0) {
        apply_hadamard(result, cache_->k_rotation(), cache_->k_rotation_size());
    }
    return result;
}

std::vector<float> EvictionView::values(size_t layer) const {
    const KvLayer & of = layers().at(layer);
    if (n_keys() == 0 || of.v == nullptr) {
        return {};
    }
    const auto read = cache_->v_transposed() ? read_columns : read_rows;
    std::vector<float> result = read(of.v, cache_->stream_of(seq()), cells(), of.n_head_kv, of.head_dim_v);
    apply_hadamard(result, cache_->v_rotation(), cache_->v_rotation_size());
    return result;
}

std::vector<int32_t> EvictionView::origins(size_t layer) const {
    std::vector<int32_t> result;
    for (int head = 0; head < layers().at(layer).n_head_kv; ++head) {
        for (const KvCell & cell : cells()) {
            result.push_back(subject_.origins != nullptr
                                 ? subject_.origins->at(layer, static_cast<size_t>(head), cell.slot)
                                 : cell.pos);
        }
    }
    return result;
}

void check_choice(const Kept & kept, const EvictionView & view) {
    const std::vector<KvLayer> & layers = view.layers();
    if (kept.size() != layers.size()) {
        throw BudgetError("the chooser answered for " + std::to_string(kept.size()) + " layers, expected " +
                          std::to_string(layers.size()));
    }
    for (size_t l = 0; l < layers.size(); ++l) {
        if (kept[l].size() != static_cast<size_t>(layers[l].n_head_kv)) {
            throw BudgetError("the chooser answered for " + std::to_string(kept[l].size()) + " heads of layer " +
                              std::to_string(layers[l].layer) + ", expected " + std::to_string(layers[l].n_head_kv));
        }
        for (size_t h = 0; h < kept[l].size(); ++h) {
            const std::vector<uint8_t> & marks = kept[l][h];
            const std::string head = head_of_layer(h, layers[l]);
            if (marks.size() != view.n_keys()) {
                throw BudgetError("the chooser answered for " + std::to_string(marks.size()) + " keys of " + head +
                                  ", expected " + std::to_string(view.n_keys()));
            }
            for (size_t i = 0; i < marks.size(); ++i) {
                if (view.is_protected()[i] != 0 && marks[i] == 0) {
                    throw BudgetError("the chooser drops key " + std::to_string(i) + " of " + head +
                                      ", which is protected (of the sink, the prompt or the window)");
                }
            }
            const auto n =
                static_cast<size_t>(std::count_if(marks.begin(), marks.end(), [](uint8_t keep) { return keep != 0; }));
            if (n != view.n_keep()) {
                throw BudgetError("the chooser keeps " + std::to_string(n) + " keys of " + head + ", expected " +
                                  std::to_string(view.n_keep()));
            }
        }
    }
}

}  // namespace triattn
