#include "slots.h"

#include "kv_view.h"
#include "rereading.h"

#include <algorithm>
#include <utility>

namespace pytriattn::server {

Slots::Slots(llama_context * ctx, const triattn::EvictionConfig & config, triattn::Stats stats,
             const triattn::DecoderParams & params)
    : Controller(ctx, config, std::move(stats), params.n_threads),
      ctx_(ctx),
      params_(params),
      states_(static_cast<size_t>(params.n_seq_max)) {
    const triattn::KvBytes bytes = view().bytes();
    bytes_per_key_ = (bytes.k + bytes.v) / (static_cast<size_t>(view().n_cells()) * view().n_stream());
    evict_by_itself();
    read_standing_questions_with([this]() -> triattn::QuestionReader & { return reader(); });
    for (SlotState & state : states_) {
        state.budget = config.budget;
    }
}

void Slots::context_ends() {
    Controller::context_ends();
    reader_.reset();  // before the model goes
    ctx_ = nullptr;
}

void Slots::start(int32_t slot, const server_task & task, const Wishes & wishes, bool protects_prompt) {
    const int32_t budget = wishes.budget.value_or(config().budget);
    Work & work = works_[slot];
    work = {budget, {}, {}, 0, protects_prompt ? task.tokens.pos_next() : 0, false};
    const auto n = static_cast<int32_t>(task.tokens.size());
    // a prompt that is shorter is not evicted from while it is read
    if (!takes_questions() || !wishes.question.is_there() || n < budget + config().interval) {
        return;
    }
    work.question = reader().read(tokens_of(wishes.question, task.tokens));
    // an image has other positions than tokens
    const auto begin = static_cast<int32_t>(wishes.question.begin) + task.tokens.pos_next() - n;
    work.asked.begin = static_cast<size_t>(begin);
    work.asked.end = work.asked.begin + (wishes.question.end - wishes.question.begin);
    work.further = begin - reader().n_before();
}

// Only when it steps: upstream may clear a slot that has begun a task.
void Slots::take_work(int32_t slot) {
    const auto found = works_.find(slot);
    if (found == works_.end() || std::exchange(found->second.is_set, true)) {
        return;
    }
    set_budget(slot, found->second.budget);
    protect(slot, found->second.n_protected);
    if (takes_questions()) {
        set_question(slot, found->second.question, found->second.further);
    }
}

void Slots::before_step(const std::vector<triattn::StepToken> & tokens) {
    for (const triattn::StepToken & token : tokens) {
        take_work(token.seq);
    }
    Controller::before_step(tokens);
}

void Slots::prepare_step(const std::vector<common_batch::token> & tokens) {
    if (!config().reread) {
        return;
    }
    finish_step();
    std::map<int32_t, int32_t> n_new;
    for (const common_batch::token & token : tokens) {
        ++n_new[token.seq_id];
    }
    const int32_t n_reread = triattn::cache_size(params_, 0).n_reread;
    for (const auto & [slot, n] : n_new) {
        take_work(slot);
        if (is_due(slot) || !has_room(slot, n + n_reread)) {
            reread_and_evict(slot);
        }
    }
}

void Slots::step_was_made(const std::vector<common_batch::token> & tokens) {
    if (!config().reread) {
        return;
    }
    for (const common_batch::token & token : tokens) {
        Recent & recent = recent_[token.seq_id];
        if (token.pos[0] != recent.end || token.id == LLAMA_TOKEN_NULL) {
            recent.tokens.clear();
        }
        if (token.id != LLAMA_TOKEN_NULL) {
            triattn::remember(recent.tokens, token.id);
        }
        recent.end = token.pos[0] + 1;
    }
}

void Slots::reread_and_evict(int32_t slot) {
    const int32_t n_past = triattn::next_position(view().cells(slot));
    if (const Recent & recent = recent_[slot]; recent.end == n_past) {
        triattn::read_once_more(ctx_, *this, slot, recent.tokens, n_past, params_.n_seq_max, [] {});
    }
    evict(slot, n_protected(slot));
}

void Slots::was_removed(int32_t seq, int32_t begin, int32_t end) {
    Controller::was_removed(seq, begin, end);
    if (const auto found = works_.find(seq); begin == 0 && found != works_.end()) {
        found->second.is_set = false;
    }
    if (Recent & recent = recent_[seq]; begin < recent.end) {
        const auto n = static_cast<size_t>(recent.end - begin);
        recent.tokens.resize(recent.tokens.size() - std::min(recent.tokens.size(), n));
        recent.end = begin;
    }
    publish();
}

void Slots::was_copied(int32_t from, int32_t to) {
    Controller::was_copied(from, to);
    works_[to] = works_[from];  // it answers the same prompt
    recent_[to] = recent_[from];
    publish();
}

void Slots::publish() {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < states_.size(); ++i) {
        const auto slot = static_cast<int32_t>(i);
        const auto work = works_.find(slot);
        const Question asked = work != works_.end() && work->second.is_set ? work->second.asked : Question{};
        states_[i] = {budget(slot), view().n_used(slot), asked, counters(slot)};
    }
    const triattn::EvictionCounters & all = Controller::counters();
    totals_ = {all.n_evictions, all.n_tokens_evicted, all.scoring_s + all.selection_s + all.compaction_s};
}

std::vector<SlotState> Slots::states() const {
    const std::lock_guard lock(mutex_);
    return states_;
}

Totals Slots::totals() const {
    const std::lock_guard lock(mutex_);
    return totals_;
}

triattn::QuestionReader & Slots::reader() {
    if (!reader_) {
        reader_ = std::make_unique<triattn::QuestionReader>(const_cast<llama_model *>(llama_get_model(ctx_)), params_);
    }
    return *reader_;
}

}  // namespace pytriattn::server
