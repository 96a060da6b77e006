// Reading what is no token: images.
#include "attention_probe.h"
#include "decoder.h"
#include "errors.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace triattn {

void Decoder::check_images() const {
    if (controller_) {
        triattn::check_images(controller_->view());
    }
}

void Decoder::check_media(int32_t n_tokens, bool is_whole) const {
    int32_t most = std::min(cache_.n_batch, cache_.n_ubatch);
    if (controller_) {
        most = std::min(most, cache_.n_cells - cache_.n_reread - controller_->config().budget);
    }
    if (is_whole && n_tokens > most) {
        throw ContextError("this model looks at an image as a whole, " + std::to_string(n_tokens) +
                           " tokens in one step, and the context has room for " + std::to_string(most) +
                           "; raise n_batch and n_ubatch, and with a budget interval, to " + std::to_string(n_tokens));
    }
}

void Decoder::read_media(int32_t seq, const Media & media, int32_t n_protected) {
    check_room(seq, static_cast<size_t>(std::max(media.n_positions, media.n_tokens)));
    check_protection(seq, n_protected);
    check_media(media.n_tokens, media.is_whole);
    const int32_t n_step = media.is_whole ? media.n_tokens : std::min(media.n_tokens, cache_.chunk);
    take_back_drafts();
    guarded([&] {
        if (controller_) {
            controller_->protect(seq, n_protected);
        }
        make_room(seq, n_step);
        const auto start = std::chrono::steady_clock::now();
        int64_t & past = n_past_[static_cast<size_t>(seq)];
        const int32_t status = media.decode(ctx_.get(), seq, static_cast<llama_pos>(past), n_step);
        llama_synchronize(ctx_.get());
        if (controller_) {
            controller_->finish_step();
        }
        counters_.decoding_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        check_status(status);
        past += media.n_positions;
        has_media_ = has_media_ || media.n_positions < media.n_tokens;
        counters_.n_decoded += media.n_tokens;
        recent_[static_cast<size_t>(seq)].clear();  // it cannot be read once more
        if (!params_.full_prefill) {
            evict_if_due(seq);
        }
    });
}

}  // namespace triattn
