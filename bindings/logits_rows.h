// The logits of the last step as numpy arrays.
#pragma once

#include "bindings.h"

#include "decoder.h"

namespace pytriattn {

// llama.cpp overwrites its own buffer with every step and frees it with the context, so an array over that could not be
// trusted. A row that is asked for is taken out of it once, into memory that is shared with all arrays of the row; a
// later step reuses that memory if no array is left, and else takes new one.
class LogitsRows {
public:
    // Float32 [n_vocab], read-only, of a row as Decoder::logits counts them. Call with the GIL.
    array<float> get(const triattn::Decoder & decoder, int32_t row);

private:
    using Values = std::shared_ptr<std::vector<float>>;
    struct Row {
        Values values;
        bool is_current = false;
    };
    std::vector<Row> rows_;
    int64_t step_ = -1;
};

}  // namespace pytriattn
