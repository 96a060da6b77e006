#include "second_reading.h"

#include <algorithm>
#include <utility>

namespace triattn {

SecondReading::SecondReading(llama_context * ctx, const KvView & view,
                             const std::vector<std::vector<AttentionNode>> & readers, QueryCapture & capture,
                             DeviceGraph & graph)
    : ctx_(ctx), view_(view), readers_(readers), capture_(capture), graph_(graph), source_(key_source(graph, view)) {}

int SecondReading::raise(const std::vector<llama_token> & tokens, size_t n,
                         std::vector<std::vector<std::vector<float>>> & table) {
    const size_t end = tokens.size(), begin = end - std::min(n, end);
    llama_memory_t memory = llama_get_memory(ctx_);
    llama_memory_seq_cp(memory, 0, 1, -1, -1);
    llama_batch batch = llama_batch_init(static_cast<int32_t>(end - begin), 0, 1);
    std::vector<int32_t> positions;
    for (size_t i = begin; i < end; ++i) {
        const auto position = static_cast<int32_t>(end + (i - begin));
        const int32_t row = batch.n_tokens++;
        batch.token[row] = tokens[i];
        batch.pos[row] = position;
        batch.n_seq_id[row] = 1;
        batch.seq_id[row][0] = 1;
        batch.logits[row] = 0;
        positions.push_back(position);
    }
    std::vector<uint8_t> all(positions.size(), 1);
    capture_.start(std::move(positions), std::move(all));
    const int status = llama_decode(ctx_, batch);
    llama_synchronize(ctx_);
    llama_batch_free(batch);
    const LayerQueries queries = capture_.stop();
    if (status == 0) {
        const std::vector<KvCell> cells = view_.shared_cells(1);
        const std::vector<std::vector<float>> found =
            most_attention(graph_, view_, 0, cells, readers_, queries, source_);
        for (size_t l = 0; l < queries.size(); ++l) {
            for (size_t head = 0; head < table[l].size(); ++head) {
                for (size_t i = 0; i < cells.size() && static_cast<size_t>(cells[i].pos) < end; ++i) {
                    float & known = table[l][head][static_cast<size_t>(cells[i].pos)];
                    if (static_cast<size_t>(cells[i].pos) >= begin) {
                        known = std::max(known, found[l][head * cells.size() + i]);
                    }
                }
            }
        }
    }
    llama_memory_seq_rm(memory, 1, -1, -1);
    return status;
}

}  // namespace triattn
