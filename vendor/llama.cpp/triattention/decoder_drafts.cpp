// Computing ahead: tokens that somebody expects next are read in the step of the token before them.
#include "decoder.h"
#include "errors.h"
#include "rereading.h"

#include <algorithm>
#include <string>

namespace triattn {

int32_t Decoder::max_drafts(llama_token token) {
    if (is_computed(token)) {
        return 0;
    }
    take_back_drafts();
    // the token itself takes one of these places
    int64_t n = std::min<int64_t>({params_.n_draft + 1, cache_.n_ubatch, params_.n_ctx - n_past_[0]});
    if (controller_) {
        const bool evicts_first = controller_->config().reread && controller_->is_due(0);
        const int64_t used = evicts_first ? controller_->budget(0) : controller_->view().n_used(0);
        n = std::min(
            {n, controller_->budget(0) + params_.eviction->interval - used, cache_.n_cells - cache_.n_reread - used});
    }
    return static_cast<int32_t>(std::max<int64_t>(0, n - 1));
}

void Decoder::step_ahead(llama_token token, std::vector<llama_token> drafts) {
    check_tokens({token});
    if (!drafts.empty()) {
        check_tokens(drafts);
    }
    drafts.resize(std::min(drafts.size(), static_cast<size_t>(max_drafts(token))));
    if (drafts.empty()) {
        step({0}, {token});
        return;
    }
    guarded([&] {
        make_room(0, 1);
        std::vector<Row> rows = {{token, 0, true}};
        for (llama_token draft : drafts) {
            rows.push_back({draft, 0, true});
        }
        decode(rows);
        const auto n = static_cast<int32_t>(drafts.size());
        n_past_[0] -= n;
        n_rows_ = 1;
        n_hidden_rows_ = n;
        counters_.n_decoded -= n;
        counters_.n_drafted += n;
        recent_[0].resize(recent_[0].size() - std::min(recent_[0].size(), drafts.size()));
        ahead_.assign(drafts.begin(), drafts.end());
    });
}

void Decoder::take_computed() {
    guarded([&] {
        check_not_interrupted();
        if (controller_ && controller_->config().reread) {
            remember(recent_[0], ahead_.front());
        }
        ahead_.pop_front();
        ++n_past_[0];
        n_rows_ = 1;
        --n_hidden_rows_;
        ++counters_.n_decoded;
        ++counters_.n_accepted;
        if (ahead_.empty()) {
            evict_if_due(0);
        }
    });
}

void Decoder::take_back_drafts() {
    if (ahead_.empty()) {
        return;
    }
    ++cache_version_;
    if (!llama_memory_seq_rm(llama_get_memory(ctx_.get()), 0, static_cast<llama_pos>(n_past_[0]), -1)) {
        clear_all();
        throw DecodeError("llama.cpp could not take back tokens that were drafted; the context has been cleared");
    }
    ahead_.clear();
}

}  // namespace triattn
