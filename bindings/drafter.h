// Guesses what a model will say next, with llama.cpp's common/speculative.
#pragma once

#include "context.h"

#include "speculative.h"

namespace pytriattn {

// A guess may be wrong: whoever takes it compares it with what the model draws.
class Drafter {
public:
    // From the text itself: what followed the last `n_match` tokens where they stood before, `n_draft` tokens of it.
    Drafter(int n_match, int n_draft);

    // By a small model with the vocabulary of the one that `target` belongs to. It reads the newest `n_ctx` tokens of
    // the text at most, in a context of its own. Throws UnsupportedModelError, ContextError.
    Drafter(std::shared_ptr<Model> model, Context & target, int n_ctx, int n_threads, int n_draft);

    // The text that drafts go on from; what it has in common with the one before is not read again.
    void set_text(std::vector<llama_token> tokens) { text_ = std::move(tokens); }
    void append(const std::vector<llama_token> & tokens);

    // At most `n_max` tokens that may come after the text and `last`. May be called without the GIL. Throws
    // DecodeError, InterruptedError; then the next call reads the text again.
    std::vector<llama_token> draft(llama_token last, int n_max);

    // From any thread: what is being computed ends with InterruptedError.
    void cancel() { is_cancelled_ = true; }
    void start() { is_cancelled_ = false; }

    SignalPoll & poll() { return poll_; }
    std::atomic_flag & busy() { return busy_; }
    int n_threads() const { return n_threads_; }

private:
    void read_text();
    void check_not_interrupted();

    std::shared_ptr<Model> model_;  // null: drafts come from the text
    SignalPoll poll_;
    std::atomic<bool> is_cancelled_{false};
    bool was_interrupted_ = false;
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    int n_ctx_ = 0, n_threads_ = 1, n_draft_;
    llama_context_ptr ctx_;
    common_batch batch_;
    llama_tokens text_, result_;
    size_t begin_ = 0;   // of the text that the small model reads
    llama_tokens read_;  // from there on, in its cache
    common_speculative_ptr speculative_;
};

}  // namespace pytriattn
