// What the controller does when the context's memory changes.
#include "bytes.h"
#include "controller.h"
#include "errors.h"
#include "query_sets.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <utility>

namespace triattn {

void EvictionCounters::add(const EvictionCounters & now, const EvictionCounters & before) {
    n_evictions += now.n_evictions - before.n_evictions;
    n_tokens_evicted += now.n_tokens_evicted - before.n_tokens_evicted;
    scoring_s += now.scoring_s - before.scoring_s;
    selection_s += now.selection_s - before.selection_s;
    compaction_s += now.compaction_s - before.compaction_s;
}

EvictionCounters Controller::counters(int32_t seq) const {
    const auto found = counters_of_.find(seq);
    return found != counters_of_.end() ? found->second : EvictionCounters{};
}

int32_t Controller::n_protected(int32_t seq) const {
    const auto found = n_protected_.find(seq);
    return found != n_protected_.end() ? found->second : 0;
}

int32_t Controller::budget(int32_t seq) const {
    const auto found = budgets_.find(seq);
    return found != budgets_.end() ? found->second : config_.budget;
}

void Controller::set_budget(int32_t seq, int32_t budget) {
    EvictionConfig config = config_;
    config.budget = budget;
    check(config);
    if (budget > config_.budget) {
        throw BudgetError("a budget of " + std::to_string(budget) + " is more than the " +
                          std::to_string(config_.budget) + " that there are cells for; ask for less");
    }
    budgets_[seq] = budget;
}

void Controller::before_step(const std::vector<StepToken> & tokens) {
    if (is_second_reading_) {
        return;  // there are cells for it
    }
    finish_step();
    std::map<int32_t, int32_t> n_new;
    for (const StepToken & token : tokens) {
        ++n_new[token.seq];
    }
    for (const auto & [seq, n] : n_new) {
        if ((evicts_by_itself_ && is_due(seq)) || !has_room(seq, n)) {
            evict(seq, n_protected(seq));
        }
    }
}

void Controller::step_is_laid_out(const std::vector<StepToken> & tokens) {
    if (!key_scorer_) {
        return;
    }
    std::vector<int32_t> positions;
    std::vector<uint8_t> wanted;
    observed_seqs_.clear();
    for (const StepToken & token : tokens) {
        positions.push_back(token.position);
        const bool is_wanted = !token.is_image && key_scorer_->wants(token.position);
        wanted.push_back(is_second_reading_ || is_wanted ? 1 : 0);
        if (wanted.back() != 0) {
            observed_seqs_.push_back(token.seq);
        }
    }
    if (observed_seqs_.empty()) {
        return;
    }
    capture_->start(std::move(positions), std::move(wanted));
    is_observing_ = true;
}

void Controller::finish_step() {
    if (!std::exchange(is_observing_, false)) {
        return;
    }
    LayerQueries all = capture_->stop();
    std::vector<int32_t> seqs = observed_seqs_;
    std::sort(seqs.begin(), seqs.end());
    seqs.erase(std::unique(seqs.begin(), seqs.end()), seqs.end());
    if (seqs.size() == 1 && seqs[0] >= 0) {
        key_scorer_->add_queries(seqs[0], std::move(all));
        return;
    }
    for (int32_t seq : seqs) {
        if (seq < 0) {
            continue;
        }
        std::vector<uint8_t> of_seq;
        for (int32_t other : observed_seqs_) {
            of_seq.push_back(other == seq ? 1 : 0);
        }
        key_scorer_->add_queries(seq, only(all, of_seq));
    }
}

bool Controller::may_remove(int32_t seq, int32_t begin, int32_t end) {
    finish_step();
    if (begin == 0 || !has_evicted(seq)) {
        return true;
    }
    return begin >= evicted_at_[seq] && end == std::numeric_limits<int32_t>::max();
}

void Controller::was_removed(int32_t seq, int32_t begin, int32_t end) {
    if (begin == 0 && end == std::numeric_limits<int32_t>::max()) {
        forget(seq);
    } else if (end == std::numeric_limits<int32_t>::max()) {
        origins(seq).truncate(begin);
        if (key_scorer_) {
            key_scorer_->truncate(seq, begin);
        }
    }
}

void Controller::was_copied(int32_t from, int32_t to) {
    finish_step();
    forget(to);
    const auto copy = [&](auto & of) {
        if (const auto found = of.find(from); found != of.end()) {
            of.insert_or_assign(to, found->second);
        }
    };
    copy(origins_);
    copy(counters_of_);
    copy(evicted_at_);
    copy(n_protected_);
    copy(budgets_);
    if (key_scorer_) {
        key_scorer_->copy(from, to);
    }
}

int32_t Controller::least_length(int32_t seq) const {
    const auto found = evicted_at_.find(seq);
    return found != evicted_at_.end() ? static_cast<int32_t>(found->second) : 0;
}

void Controller::context_ends() {
    if (capture_) {
        capture_->abandon();
    }
}

void Controller::forget(int32_t seq) {
    is_second_reading_ = false;
    is_half_moved_ = false;
    std::replace(observed_seqs_.begin(), observed_seqs_.end(), seq, -1);
    origins_.erase(seq);
    if (key_scorer_) {
        key_scorer_->forget(seq);
    }
    counters_of_.erase(seq);
    evicted_at_.erase(seq);
    n_protected_.erase(seq);
    budgets_.erase(seq);
}

std::vector<uint8_t> Controller::save(int32_t seq) {
    finish_step();
    const std::vector<KvCell> cells = view_.cells(seq);
    OriginMap & origin = origins(seq);
    origin.sync(cells);
    std::vector<uint8_t> bytes;
    const uint64_t n_cells = cells.size();
    const int64_t n_evictions = counters(seq).n_evictions;
    const int64_t evicted_at = least_length(seq);
    put(bytes, &n_cells, sizeof n_cells);
    put(bytes, &n_evictions, sizeof n_evictions);
    put(bytes, &evicted_at, sizeof evicted_at);
    origin.save(bytes, cells);
    if (key_scorer_) {
        key_scorer_->save(seq, bytes, cells);
    }
    return bytes;
}

void Controller::load(int32_t seq, const std::vector<uint8_t> & bytes) {
    forget(seq);
    const std::vector<KvCell> cells = view_.cells(seq);
    ByteReader in(bytes.data(), bytes.size());
    uint64_t n_cells = 0;
    int64_t n_evictions = 0, evicted_at = 0;
    in.get(&n_cells, sizeof n_cells);
    if (n_cells != cells.size()) {
        throw DecodeError("the saved state does not fit this context: it has " + std::to_string(n_cells) +
                          " keys per head, and the cache now " + std::to_string(cells.size()));
    }
    in.get(&n_evictions, sizeof n_evictions);
    in.get(&evicted_at, sizeof evicted_at);
    origins(seq).load(in, cells);
    if (key_scorer_) {
        key_scorer_->load(seq, in, cells);
    }
    in.check_at_end();
    if (n_evictions > 0) {
        counters_of_[seq].n_evictions = n_evictions;
        evicted_at_[seq] = evicted_at;
    }
}

}  // namespace triattn
