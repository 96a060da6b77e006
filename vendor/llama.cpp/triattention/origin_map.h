// Which token's key and value lie in which cell, per layer and KV head. After an eviction the cells' positions are
// labels.
#pragma once

#include "bytes.h"
#include "compactor.h"
#include "kv_view.h"

#include <cstdint>
#include <vector>

namespace triattn {

// For one sequence.
class OriginMap {
public:
    OriginMap(size_t n_cells, const std::vector<KvLayer> & layers);

    // Enters the cells that were filled since the last call (positions not seen yet).
    void sync(const std::vector<KvCell> & cells);
    void apply(const CompactionPlan & plan);
    // What is known of these cells as bytes, and back: the same keys may then lie in other cells.
    void save(std::vector<uint8_t> & bytes, const std::vector<KvCell> & cells) const;
    void load(ByteReader & in, const std::vector<KvCell> & cells);

    // The sequence was cut back to its first `n` positions; those behind have not been moved.
    void truncate(int32_t n);

    // The position of the token that a head's key in a cell comes from.
    int32_t at(size_t layer, size_t kv_head, uint32_t slot) const { return origin_[layer][kv_head][slot]; }

    // Token positions kept by a head, ascending. `layer` counts the view's layers.
    std::vector<int32_t> kept(size_t layer, size_t kv_head, const std::vector<KvCell> & cells) const;

    // Token positions that each head will lose, ascending: [layer][kv_head].
    std::vector<std::vector<std::vector<int32_t>>> evicted(const Kept & kept, const std::vector<KvCell> & cells) const;

private:
    std::vector<std::vector<std::vector<int32_t>>> origin_;  // [layer][kv_head][slot]
    SeenCells seen_;
};

}  // namespace triattn
