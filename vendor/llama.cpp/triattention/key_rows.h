// Reading keys and values of some cells to the host, through the devices that hold them.
#pragma once

#include "attention_probe.h"
#include "device_graph.h"
#include "kv_view.h"

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

// [n_head_kv][n_cells, width]; what llama.cpp multiplies rows of a quantised cache by has been undone.
struct KeyRows {
    std::vector<std::vector<float>> keys, values;  // values are empty where they are a part of the keys
};

// For each layer of the view, of which `readers` are the attention operations. Needs values that are not transposed.
std::vector<KeyRows> read_key_rows(DeviceGraph & graph, const KvView & view,
                                   const std::vector<std::vector<AttentionNode>> & readers, uint32_t stream,
                                   const std::vector<KvCell> & cells);

// The operations of read_key_rows that a device lacks, as DeviceGraph has it.
std::vector<std::string> missing_key_rows(DeviceGraph & graph, const KvView & view, ggml_backend_dev_t device);

}  // namespace triattn
