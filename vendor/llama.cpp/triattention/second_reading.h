// Reads a part of a text once more right behind it, and tells which keys that looked for.
#pragma once

#include "attention.h"
#include "attention_probe.h"
#include "device_graph.h"
#include "kv_view.h"
#include "query_capture.h"

#include "llama.h"

#include <cstdint>
#include <vector>

namespace triattn {

// Tokens that are read again with those of a chunk, since the first ones of a chunk are looked for by what came before.
constexpr int32_t READ_AGAIN_BEFORE = 32;

// In a context of two sequences that share one pool of cells: the text is sequence 0, and sequence 1 is free.
class SecondReading {
public:
    SecondReading(llama_context * ctx, const KvView & view, const std::vector<std::vector<AttentionNode>> & readers,
                  QueryCapture & capture, DeviceGraph & graph);

    // Reads the last `n` of the sequence's tokens (all of them are `tokens`) again, and raises the table to the most
    // attention that each of their keys gets: [layer][n_head_kv][n_ctx]. Returns llama_decode's status; nothing of the
    // second reading stays in the cache.
    int raise(const std::vector<llama_token> & tokens, size_t n, std::vector<std::vector<std::vector<float>>> & table);

private:
    llama_context * ctx_;
    const KvView & view_;
    const std::vector<std::vector<AttentionNode>> & readers_;
    QueryCapture & capture_;
    DeviceGraph & graph_;
    KeySource source_;
};

}  // namespace triattn
