// A batch of llama.cpp's that frees itself: tokens of one sequence each.
#pragma once

#include "llama.h"

#include <cstdint>

namespace triattn {

class Batch {
public:
    explicit Batch(int32_t n) : batch_(llama_batch_init(n, 0, 1)) {}
    ~Batch() { llama_batch_free(batch_); }
    Batch(const Batch &) = delete;
    Batch & operator=(const Batch &) = delete;
    void add(llama_token token, llama_pos pos, llama_seq_id seq, bool logits) {
        const int32_t i = batch_.n_tokens++;
        batch_.token[i] = token;
        batch_.pos[i] = pos;
        batch_.n_seq_id[i] = 1;
        batch_.seq_id[i][0] = seq;
        batch_.logits[i] = logits ? 1 : 0;
    }
    const llama_batch & get() const { return batch_; }

private:
    llama_batch batch_;
};

}  // namespace triattn
