// Brings each head's kept keys and values into a common set of cells by filling holes, so that the others can be freed.
#pragma once

#include "device_graph.h"
#include "kv_view.h"
#include "selector.h"

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

// One head's row is copied from a cell that will be freed to a cell that stays and whose key this head evicts.
struct Move {
    uint32_t from;
    uint32_t to;
};

struct CompactionPlan {
    std::vector<uint8_t> freed;                         // [n_cells of the sequence] 1: the cell is given back
    std::vector<std::vector<std::vector<Move>>> moves;  // [layer][kv_head]; slots
};

// Frees the cells whose keys most heads evict (equal counts: the older one), as many as each head evicts.
// `cells` by ascending position; `kept` marks keys in the same order.
CompactionPlan plan_compaction(const Kept & kept, const std::vector<KvCell> & cells);

// Copies rows of K and V as the plan says, bit for bit, whatever their type. Throws BudgetError if V is transposed and
// the plan moves anything.
void move_rows(const KvView & view, uint32_t stream, const CompactionPlan & plan, DeviceGraph & graph);

// The operations of move_rows that a device lacks, as DeviceGraph has it.
std::vector<std::string> missing_moves(const KvView & view, DeviceGraph & graph, ggml_backend_dev_t device);

}  // namespace triattn
