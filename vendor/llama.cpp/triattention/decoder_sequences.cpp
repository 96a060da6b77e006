// What becomes of a decoder's sequences beside reading: cutting back, questions, saving, clearing, looking into.
#include "decoder.h"

#include "bytes.h"
#include "errors.h"
#include "kv_state.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace triattn {

int64_t Decoder::truncate(int32_t seq, int64_t n, bool keep_evicted) {
    check_room(seq, 0);
    take_back_drafts();
    int64_t & past = n_past_[static_cast<size_t>(seq)];
    n = std::clamp<int64_t>(n, 0, past);
    n_rows_ = 0;
    ++cache_version_;
    const bool was_evicted =
        controller_ && controller_->has_evicted(seq) && !(keep_evicted && n >= controller_->evicted_at(seq));
    if (n == past && !was_evicted) {
        return n;
    }
    llama_memory_t memory = llama_get_memory(ctx_.get());
    const int32_t n_swa = llama_model_n_swa(llama_get_model(ctx_.get()));
    // what is before the window has gone from sliding layers; the next token needs all of its own window
    const bool has_slid = n_swa > 0 && llama_memory_seq_pos_min(memory, seq) > std::max<int64_t>(0, n - n_swa);
    if (n == 0 || has_slid || was_evicted || !llama_memory_seq_rm(memory, seq, static_cast<llama_pos>(n), -1)) {
        clear(seq);
        return 0;
    }
    std::vector<llama_token> & recent = recent_[static_cast<size_t>(seq)];
    recent.resize(recent.size() - std::min(recent.size(), static_cast<size_t>(past - n)));
    past = n;
    if (controller_) {
        controller_->protect(seq, 0);
    }
    return n;
}

void Decoder::set_question(int32_t seq, const std::vector<llama_token> & tokens, int32_t position) {
    check_room(seq, 0);
    if (!controller_ || !controller_->takes_questions()) {
        return;
    }
    if (tokens.empty()) {
        controller_->set_question(seq, {}, 0);
        return;
    }
    check_tokens(tokens);
    check_question_length(static_cast<int64_t>(tokens.size()), controller_->budget(seq));
    LayerQueries queries = question_reader().read(tokens);
    controller_->set_question(seq, std::move(queries), position - question_reader().n_before());
}

QuestionReader & Decoder::question_reader() {
    if (!question_reader_) {
        question_reader_ =
            std::make_unique<QuestionReader>(const_cast<llama_model *>(llama_get_model(ctx_.get())), params_);
        if (set_up_) {
            set_up_(question_reader_->context());
        }
    }
    return *question_reader_;
}

void Decoder::for_each_context(const std::function<void(llama_context *)> & work) {
    set_up_ = work;
    work(ctx_.get());
    if (question_reader_) {
        work(question_reader_->context());
    }
}

SavedSequence Decoder::save() {
    if (params_.n_seq_max != 1) {
        throw ContextError("a state can be saved only from a context of one sequence (n_seq_max=1)");
    }
    take_back_drafts();
    SavedSequence saved;
    saved.cells = save_sequence(ctx_.get(), 0);
    if (controller_) {
        saved.origins = controller_->save(0);
        if (controller_->config().reread) {
            put_all(saved.origins, recent_[0]);
            const uint64_t n_bytes = recent_[0].size() * sizeof(llama_token) + sizeof(uint64_t);
            put(saved.origins, &n_bytes, sizeof n_bytes);
        }
    }
    saved.n_tokens = n_past_[0];
    saved.n_protected = controller_ ? controller_->n_protected(0) : 0;
    return saved;
}

void Decoder::load(const SavedSequence & saved) {
    if (params_.n_seq_max != 1) {
        throw ContextError("a state can be loaded only into a context of one sequence (n_seq_max=1)");
    }
    if (saved.n_tokens < 0 || saved.n_tokens > params_.n_ctx || saved.n_protected < 0 ||
        saved.n_protected > saved.n_tokens) {
        throw DecodeError("the saved state does not fit this context: it has " + std::to_string(saved.n_tokens) +
                          " tokens, " + std::to_string(saved.n_protected) + " of them protected");
    }
    clear_all();
    guarded([&] {
        load_sequence(ctx_.get(), 0, saved.cells, saved.n_tokens);
        if (controller_) {
            load_origins(saved.origins);
            const int64_t evicted_at = controller_->has_evicted(0) ? controller_->evicted_at(0) : 0;
            if (evicted_at < 0 || evicted_at > saved.n_tokens) {
                throw DecodeError("the saved state does not fit this context: it has been evicted from at position " +
                                  std::to_string(evicted_at));
            }
            controller_->protect(0, saved.n_protected);
        }
        n_past_[0] = saved.n_tokens;
    });
}

// What the controller knows of a sequence, and behind that the newest tokens if they will be read again.
void Decoder::load_origins(const std::vector<uint8_t> & bytes) {
    if (!controller_->config().reread) {
        controller_->load(0, bytes);
        return;
    }
    uint64_t n_recent = 0;
    if (bytes.size() >= sizeof n_recent) {
        ByteReader(bytes.data() + bytes.size() - sizeof n_recent, sizeof n_recent).get(&n_recent, sizeof n_recent);
    }
    if (bytes.size() < sizeof n_recent || n_recent > bytes.size() - sizeof n_recent) {
        throw DecodeError("the saved state does not fit this context: it has no tokens to read again");
    }
    const size_t n_rest = bytes.size() - sizeof n_recent - n_recent;
    ByteReader in(bytes.data() + n_rest, n_recent);
    get_all(in, recent_[0]);
    in.check_at_end();
    if (!recent_[0].empty()) {
        check_tokens(recent_[0]);
    }
    controller_->load(0, {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n_rest)});
}

void Decoder::clear(int32_t seq) {
    if (params_.n_seq_max == 1) {
        clear_all();
        return;
    }
    check_room(seq, 0);
    ++cache_version_;
    llama_memory_seq_rm(llama_get_memory(ctx_.get()), seq, -1, -1);
    n_past_[static_cast<size_t>(seq)] = 0;
    if (seq == 0) {
        ahead_.clear();
    }
    recent_[static_cast<size_t>(seq)].clear();
}

void Decoder::clear_all() {
    llama_memory_clear(llama_get_memory(ctx_.get()), /*data*/ false);
    std::fill(n_past_.begin(), n_past_.end(), 0);
    for (std::vector<llama_token> & recent : recent_) {
        recent.clear();
    }
    ahead_.clear();
    has_media_ = false;
    n_rows_ = 0;
    ++cache_version_;
}

void Decoder::remove(int32_t seq, const std::vector<int32_t> & positions) {
    check_room(seq, 0);
    if (!view_) {
        throw ContextError("positions can be removed only from a KV cache that nothing else evicts from");
    }
    take_back_drafts();
    ++cache_version_;
    view_->remove(seq, positions);
}

void Decoder::evict(int32_t seq, int32_t n_protected) {
    check_room(seq, 0);
    take_back_drafts();
    if (controller_) {
        ++cache_version_;
        try {
            controller_->evict(seq, n_protected);
        } catch (...) {
            if (controller_->is_half_moved()) {
                clear_all();
            }
            throw;
        }
    }
}

void Decoder::read_again(int32_t seq) {
    check_room(seq, 0);
    take_back_drafts();
    if (controller_ && controller_->config().reread) {
        guarded([&] { reread(seq); });
    }
}

EvictionView Decoder::eviction_view(int32_t seq) {
    check_room(seq, 0);
    take_back_drafts();
    if (controller_) {
        return controller_->view_of(seq, controller_->n_protected(seq));
    }
    if (!view_) {
        throw UnsupportedModelError("this model keeps no KV cache of a kind that can be looked into");
    }
    if (!has_hadamard_) {
        has_hadamard_ = probe_hadamard(*view_);
    }
    EvictionView::Subject subject;
    subject.seq = seq;
    subject.cells = view_->cells(seq);
    subject.is_protected.assign(subject.cells.size(), 0);
    subject.n_keep = subject.cells.size();
    subject.has_hadamard = *has_hadamard_;
    return EvictionView(*view_, std::move(subject));
}

std::vector<int32_t> Decoder::kept_positions(int32_t seq, int32_t layer, int32_t kv_head) {
    if (view() == nullptr) {
        throw UnsupportedModelError("this model keeps no KV cache whose positions could be listed");
    }
    check_room(seq, 0);
    take_back_drafts();
    const std::vector<KvLayer> & layers = view()->layers();
    const auto found = std::find_if(layers.begin(), layers.end(), [&](const KvLayer & l) { return l.layer == layer; });
    if (found == layers.end()) {
        throw ContextError("layer " + std::to_string(layer) +
                           " has no full-attention cache of its own; attention_layers lists those that have");
    }
    if (kv_head < 0 || kv_head >= found->n_head_kv) {
        throw ContextError("layer " + std::to_string(layer) + " has " + std::to_string(found->n_head_kv) +
                           " KV heads, not a head " + std::to_string(kv_head));
    }
    if (controller_) {
        return controller_->kept_positions(seq, static_cast<size_t>(found - layers.begin()),
                                           static_cast<size_t>(kv_head));
    }
    std::vector<int32_t> result;
    for (const KvCell & cell : view()->cells(seq)) {
        result.push_back(cell.pos);
    }
    return result;
}

}  // namespace triattn
