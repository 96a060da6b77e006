#include "kv_memory.h"

#include "errors.h"
#include "kv_parts.h"

#include "llama-batch.h"
#include "llama-io.h"
#include "llama.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace triattn {
namespace {

// How llama.cpp has divided a step is private to it, and so is where a context keeps its memory; but an explicit
// instantiation may name a private member, and fails to compile if the member goes.
template <typename Class>
using Steps = std::vector<llama_ubatch> Class::*;
template <typename Class, Steps<Class> member>
struct StepsOf {
    friend Steps<Class> steps_member(const Class *) { return member; }
};

Steps<llama_kv_cache_context> steps_member(const llama_kv_cache_context *);
Steps<llama_kv_cache_iswa_context> steps_member(const llama_kv_cache_iswa_context *);
Steps<llama_memory_hybrid_context> steps_member(const llama_memory_hybrid_context *);
Steps<llama_memory_hybrid_iswa_context> steps_member(const llama_memory_hybrid_iswa_context *);
template struct StepsOf<llama_kv_cache_context, &llama_kv_cache_context::ubatches>;
template struct StepsOf<llama_kv_cache_iswa_context, &llama_kv_cache_iswa_context::ubatches>;
template struct StepsOf<llama_memory_hybrid_context, &llama_memory_hybrid_context::ubatches>;
template struct StepsOf<llama_memory_hybrid_iswa_context, &llama_memory_hybrid_iswa_context::ubatches>;

using MemoryMember = llama_memory_ptr llama_context::*;
MemoryMember memory_member();
template <MemoryMember member>
struct MemoryMemberOf {
    friend MemoryMember memory_member() { return member; }
};
template struct MemoryMemberOf<&llama_context::memory>;

template <typename Class>
bool read_steps(const llama_memory_context_i & layout, std::vector<StepToken> & tokens) {
    const auto * of = dynamic_cast<const Class *>(&layout);
    if (of == nullptr) {
        return false;
    }
    for (const llama_ubatch & step : of->*steps_member(of)) {
        for (uint32_t i = 0; i < step.n_tokens; ++i) {
            tokens.push_back({step.seq_id[i][0], step.pos[i], step.is_pos_2d() && step.token == nullptr});
        }
    }
    return true;
}

std::vector<StepToken> in_order(const llama_memory_context_i & layout) {
    std::vector<StepToken> tokens;
    if (!read_steps<llama_kv_cache_context>(layout, tokens) &&
        !read_steps<llama_kv_cache_iswa_context>(layout, tokens) &&
        !read_steps<llama_memory_hybrid_context>(layout, tokens)) {
        read_steps<llama_memory_hybrid_iswa_context>(layout, tokens);
    }
    return tokens;
}

std::vector<StepToken> tokens_of(const llama_batch & batch) {
    std::vector<StepToken> tokens;
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
        if (batch.n_seq_id[i] != 1) {
            throw DecodeError(
                "a token of several sequences would share a cell, which cannot be evicted from one of them; give each "
                "sequence a token of its own");
        }
        tokens.push_back({batch.seq_id[i][0], batch.pos[i], false});
    }
    return tokens;
}

class GuardedMemory : public llama_memory_i, public WrappedMemory {
public:
    GuardedMemory(llama_memory_ptr inner, uint32_t n_seq_max, int32_t n_swa, std::shared_ptr<MemoryGuard> guard)
        : inner_(std::move(inner)), n_seq_max_(n_seq_max), n_swa_(n_swa), guard_(std::move(guard)) {}
    ~GuardedMemory() override { guard_->context_ends(); }

    llama_memory_i * inner() override { return inner_.get(); }

    llama_memory_context_ptr init_batch(llama_batch_allocr & batch, uint32_t n_ubatch, bool embd_all) override {
        guard_->before_step(tokens_of(batch.get_batch()));
        llama_memory_context_ptr layout = inner_->init_batch(batch, n_ubatch, embd_all);
        if (layout && layout->get_status() == LLAMA_MEMORY_STATUS_SUCCESS) {
            guard_->step_is_laid_out(in_order(*layout));
        }
        return layout;
    }
    llama_memory_context_ptr init_full() override { return inner_->init_full(); }
    llama_memory_context_ptr init_update(llama_context * ctx, bool optimize) override {
        return inner_->init_update(ctx, optimize);
    }
    bool get_can_shift() const override { return false; }

    void clear(bool data) override {
        inner_->clear(data);
        for_each_sequence(-1, [&](int32_t seq) { guard_->was_removed(seq, 0, END); });
    }
    bool seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) override {
        const int32_t begin = std::max(p0, 0), end = p1 < 0 ? END : p1;
        bool may = true;
        for_each_sequence(seq_id, [&](int32_t seq) { may = may && guard_->may_remove(seq, begin, end); });
        if (!may || !inner_->seq_rm(seq_id, p0, p1)) {
            return false;
        }
        for_each_sequence(seq_id, [&](int32_t seq) { guard_->was_removed(seq, begin, end); });
        return true;
    }
    void seq_cp(llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) override {
        if (from == to) {
            return;
        }
        if (p0 > 0 || (p1 >= 0 && p1 <= inner_->seq_pos_max(from))) {
            throw ContextError("a part of a sequence cannot be copied with a budget; copy all of it");
        }
        inner_->seq_cp(from, to, p0, p1);
        guard_->was_copied(from, to);
    }
    void seq_keep(llama_seq_id seq_id) override {
        inner_->seq_keep(seq_id);
        for_each_sequence(-1, [&](int32_t seq) {
            if (seq != seq_id) {
                guard_->was_removed(seq, 0, END);
            }
        });
    }
    void seq_add(llama_seq_id, llama_pos, llama_pos, llama_pos) override { refuse_to_shift(); }
    void seq_div(llama_seq_id, llama_pos, llama_pos, int) override { refuse_to_shift(); }

    // Where the sequence cannot be cut back behind this position less the sliding window, whoever goes on from a part of
    // it must read it anew: so it is for sliding windows, and clients know that.
    llama_pos seq_pos_min(llama_seq_id seq_id) const override {
        const llama_pos least = inner_->seq_pos_min(seq_id);
        return least < 0 ? least : std::max(least, guard_->least_length(seq_id) - 1 - n_swa_);
    }
    llama_pos seq_pos_max(llama_seq_id seq_id) const override { return inner_->seq_pos_max(seq_id); }
    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const override {
        return inner_->memory_breakdown();
    }

    // A part is what has moved on with a window or a recurrent state, to be put back beside the cells of earlier tokens.
    // An eviction takes of those, so the part alone would not do.
    void state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const override {
        io.write(&MARK, sizeof MARK);
        inner_->state_write(io, seq_id, flags & ~LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
        for_each_sequence(seq_id, [&](int32_t seq) {
            const std::vector<uint8_t> bytes = guard_->save(seq);
            const uint64_t n = bytes.size();
            io.write(&n, sizeof n);
            io.write(bytes.data(), n);
        });
    }
    void state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) override {
        uint64_t mark = 0;
        io.read(&mark, sizeof mark);
        if (mark != MARK) {
            throw DecodeError("the saved sequence comes from a context without a budget; read its text again");
        }
        seq_rm(seq_id, -1, -1);
        try {
            inner_->state_read(io, seq_id, flags & ~LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
            for_each_sequence(seq_id, [&](int32_t seq) { load_books(io, seq); });
        } catch (...) {
            seq_rm(seq_id, -1, -1);
            throw;
        }
    }

private:
    static constexpr int32_t END = std::numeric_limits<int32_t>::max();
    static constexpr uint64_t MAX_BOOKS = uint64_t{1} << 32;
    // Contexts without a guard refuse what begins with it, where they would take evicted cells for a whole text.
    static constexpr uint64_t MARK = 0x7472696174746E31;

    void load_books(llama_io_read_i & io, int32_t seq) {
        uint64_t n = 0;
        io.read(&n, sizeof n);
        if (n > MAX_BOOKS) {
            throw DecodeError("the saved sequence is damaged; read its text again");
        }
        std::vector<uint8_t> bytes(n);
        io.read(bytes.data(), n);
        guard_->load(seq, bytes);
    }

    template <typename Work>
    void for_each_sequence(llama_seq_id seq_id, const Work & work) const {
        for (uint32_t seq = 0; seq < n_seq_max_; ++seq) {
            if (seq_id < 0 || static_cast<uint32_t>(seq_id) == seq) {
                work(static_cast<int32_t>(seq));
            }
        }
    }

    [[noreturn]] static void refuse_to_shift() {
        throw ContextError("positions cannot be shifted with a budget: keys in one cell may be of several positions");
    }

    llama_memory_ptr inner_;
    uint32_t n_seq_max_;
    int32_t n_swa_;
    std::shared_ptr<MemoryGuard> guard_;
};

}  // namespace

void set_guard(llama_context * ctx, std::shared_ptr<MemoryGuard> guard) {
    find_parts(ctx);  // throws where nothing could be evicted
    llama_memory_ptr & memory = ctx->*memory_member();
    memory = std::make_unique<GuardedMemory>(std::move(memory), llama_n_seq_max(ctx),
                                             llama_model_n_swa(llama_get_model(ctx)), std::move(guard));
}

void set_positions(llama_context * ctx, uint32_t n) {
    auto & params = const_cast<llama_cparams &>(ctx->get_cparams());
    params.n_ctx_seq = n;
    params.n_ctx = n * params.n_seq_max;
}

}  // namespace triattn
