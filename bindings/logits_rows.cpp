#include "logits_rows.h"

#include <algorithm>

namespace pytriattn {

array<float> LogitsRows::get(const triattn::Decoder & decoder, int32_t row) {
    const float * logits = decoder.logits(row);  // throws if there is no such row
    // every step counts its tokens, so that this number tells steps apart
    if (step_ != decoder.counters().n_decoded) {
        step_ = decoder.counters().n_decoded;
        rows_.resize(static_cast<size_t>(decoder.n_rows()));
        for (Row & old : rows_) {
            old.is_current = false;
        }
    }
    Row & wanted = rows_[static_cast<size_t>(row < 0 ? row + decoder.n_rows() : row)];
    if (!wanted.is_current) {
        if (!wanted.values || wanted.values.use_count() > 1) {
            wanted.values = std::make_shared<std::vector<float>>(static_cast<size_t>(decoder.n_vocab()));
        }
        std::copy_n(logits, wanted.values->size(), wanted.values->begin());
        wanted.is_current = true;
    }
    const auto n = static_cast<py::ssize_t>(wanted.values->size());
    array<float> result = array_over(wanted.values->data(), {n}, std::make_unique<Values>(wanted.values));
    result.attr("setflags")(py::arg("write") = false);
    return result;
}

}  // namespace pytriattn
