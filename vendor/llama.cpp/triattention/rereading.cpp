#include "rereading.h"

#include "batch.h"
#include "errors.h"
#include "kv_state.h"

#include <algorithm>
#include <cstddef>
#include <string>

namespace triattn {
namespace {

constexpr size_t MAX_REREAD = 1024;  // tokens, of what is new since an eviction

}  // namespace

void remember(std::vector<llama_token> & recent, llama_token token) {
    if (recent.size() >= 2 * MAX_REREAD) {
        recent.erase(recent.begin(), recent.end() - static_cast<std::ptrdiff_t>(MAX_REREAD));
    }
    recent.push_back(token);
}

void read_once_more(llama_context * ctx, Controller & controller, int32_t seq, const std::vector<llama_token> & recent,
                    int64_t n_past, int32_t n_seq_max, const std::function<void()> & check) {
    const int64_t known =
        std::min<int64_t>({static_cast<int64_t>(recent.size()), static_cast<int64_t>(MAX_REREAD), n_past});
    const int64_t fresh = controller.has_evicted(seq) ? n_past - controller.evicted_at(seq) : n_past;
    const int64_t first = n_past - std::min(known, fresh);
    const int32_t step = controller.config().interval;
    const std::vector<uint8_t> place = save_place(ctx, seq, n_seq_max);
    for (int64_t begin = first; begin < n_past; begin += step) {
        const int64_t from = std::max(begin - REREAD_BEFORE, n_past - known);
        const int64_t to = std::min(begin + step, n_past);
        Batch batch(static_cast<int32_t>(to - from));
        for (int64_t i = from; i < to; ++i) {
            const auto position = static_cast<llama_pos>(n_past + (i - from));
            batch.add(recent[recent.size() - static_cast<size_t>(n_past - i)], position, seq, false);
        }
        controller.start_second_reading();
        const int status = llama_decode(ctx, batch.get());
        llama_synchronize(ctx);
        controller.stop_second_reading(seq, static_cast<int32_t>(from));
        check();
        if (status != 0) {
            throw DecodeError("llama.cpp could not read the text a second time (status " + std::to_string(status) +
                              "); the context has been cleared");
        }
        go_back(ctx, seq, static_cast<int32_t>(n_past), place);
    }
}

}  // namespace triattn
