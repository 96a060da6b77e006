// A context that reads text and decodes token by token, with eviction where a budget is set.
#pragma once

#include "controller.h"
#include "decoder_params.h"
#include "question_reader.h"
#include "stats.h"

#include "llama-cpp.h"
#include "llama.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace triattn {

struct DecoderCounters {
    double decoding_s = 0;
    int64_t n_decoded = 0;   // tokens
    int64_t n_drafted = 0;   // tokens computed on the guess that they come next
    int64_t n_accepted = 0;  // of these, tokens that did
};

// How well a token was predicted.
struct TokenScore {
    float logprob;
    bool is_best;  // no other token was likelier
};

// A sequence, to be put back into a context of the same model and settings.
struct SavedSequence {
    std::vector<uint8_t> cells;    // of the cache, and recurrent states
    std::vector<uint8_t> origins;  // where keys come from, and how often there was an eviction; empty without a budget
    int64_t n_tokens = 0;          // read so far
    int32_t n_protected = 0;       // first positions that are never evicted
};

// What stands in a text beside tokens, such as an image.
struct Media {
    int32_t n_tokens = 0;     // keys of each head
    int32_t n_positions = 0;  // that it takes in the sequence
    bool is_whole = false;    // it has to be read in one step
    // Reads it into a context's sequence from `position` on, in steps of at most `n_step` tokens; returns llama.cpp's
    // status.
    std::function<int32_t(llama_context * ctx, int32_t seq, int32_t position, int32_t n_step)> decode;
};

// Every method that computes throws DecodeError or InterruptedError; then all sequences have been cleared.
class Decoder {
public:
    Decoder(llama_model * model, const DecoderParams & params, Stats stats);

    // Called with the index of a token and the logits [n_vocab] that follow it.
    using RowSink = std::function<void(size_t index, const float * logits)>;

    // Appends tokens to a sequence; logits() then has the row of the last one. The first n_protected positions are
    // never evicted. `sink`, if given, gets the logits of every token. Throws InvalidTokenError, ContextFullError,
    // BudgetError before anything changes. `goes_on`: more of the same prompt follows.
    void read(int32_t seq, const std::vector<llama_token> & tokens, int32_t n_protected, const RowSink & sink = {},
              bool goes_on = false);

    // Throws UnsupportedModelError if there is a budget, and keys of images could not be scored.
    void check_images() const;

    // Throws ContextError if there is no room for something of `n_tokens` that has to be read in one step (`is_whole`).
    void check_media(int32_t n_tokens, bool is_whole) const;

    // Appends something else of a prompt that goes on behind it. There are no logits then. Errors of read() and
    // check_media() before anything changes.
    void read_media(int32_t seq, const Media & media, int32_t n_protected);

    // Appends one token to each of these (different) sequences; logits() has their rows in the same order.
    void step(const std::vector<int32_t> & seqs, const std::vector<llama_token> & tokens);

    // As step() with one token of sequence 0, but `drafts`, tokens that may follow it, are computed with it. A step() with
    // one of these, in their order, then only looks up what is there; any other call first takes the rest of them back.
    // Evictions take place where they would without drafts. At most max_drafts() of them are used.
    void step_ahead(llama_token token, std::vector<llama_token> drafts);

    // How many drafts may follow `token`: none reaches the next eviction or n_ctx. 0 if `token` itself has been computed
    // already. Otherwise takes back what has been computed ahead.
    int32_t max_drafts(llama_token token);
    void take_back_drafts();
    int32_t n_ahead(int32_t seq) const { return seq == 0 ? static_cast<int32_t>(ahead_.size()) : 0; }

    // Clears sequence 0 and reads `tokens` in steps of the eviction interval, evicting exactly where decoding would.
    // Returns ln p(tokens[i+1] | tokens[..i]) for every i: [tokens.size() - 1].
    std::vector<float> logprobs(const std::vector<llama_token> & tokens);

    // Appends `tokens` to sequence 0 in the same steps. Returns how well tokens[first..] were predicted:
    // [tokens.size() - first]; `first` is at least 1. logits() then has the rows of the last step.
    std::vector<TokenScore> score(const std::vector<llama_token> & tokens, size_t first);
    int32_t score_step() const;  // tokens in a whole step

    // ln p(token) under these logits.
    float logprob(const float * logits, llama_token token) const;

    // Logits [n_vocab] of a row of the last read or step, counted from the end if negative. Valid until the next one.
    const float * logits(int32_t row) const;
    // The same row as llama.cpp counts them: from the end of its last step.
    int32_t output_of(int32_t row) const;
    int32_t n_rows() const { return n_rows_; }

    // Cuts a sequence back to its first n positions, so that a text that begins alike need not be read again. Returns
    // n; or 0 if that is impossible (an eviction has been there, a recurrent state or a sliding window has moved on):
    // then it has been cleared. `keep_evicted`: an eviction before position n is no obstacle, since it took place when
    // n tokens or fewer had been read.
    int64_t truncate(int32_t seq, int64_t n, bool keep_evicted = false);

    // From now on chooses the keys of a sequence that these tokens ask for, which stand from `position` on; none: no
    // question any more. They are read alone, in a context of their own. At most QuestionReader::MAX_TOKENS, and no more
    // than the budget. Ends when the sequence is cleared. Nothing happens in a mode that takes no questions.
    void set_question(int32_t seq, const std::vector<llama_token> & tokens, int32_t position);

    // Called with every context that computes with the model for this one, now and when it is made.
    void for_each_context(const std::function<void(llama_context *)> & work);

    // Only for contexts of one sequence.
    SavedSequence save();
    // Throws DecodeError if it does not fit; then the context is empty. There are no logits until a token has been
    // read.
    void load(const SavedSequence & saved);

    void clear(int32_t seq);
    void clear_all();

    // Prunes a sequence's cache to the budget now, if there is a budget and it holds more. See Controller::evict. An
    // error leaves the cache as it was; if rows have moved already, all sequences have been cleared.
    void evict(int32_t seq, int32_t n_protected);

    // The second reading that comes before an eviction where EvictionConfig::reread is set: reads what is new since the
    // last one once more, and looks what that looks for. Nothing else changes.
    void read_again(int32_t seq);

    // What a chooser would see of the sequence now. Without a budget nothing is protected and all keys are to be kept.
    // Throws UnsupportedModelError if the model keeps no cache that can be looked into.
    EvictionView eviction_view(int32_t seq);

    // Another number after everything that changes a cache: a view of an earlier number is not valid any more.
    int64_t cache_version() const { return cache_version_; }

    // Takes positions out of the layers with full attention by llama.cpp's own means: what evictions are compared with.
    // Throws ContextError in a context that evicts by itself.
    void remove(int32_t seq, const std::vector<int32_t> & positions);

    int64_t n_tokens(int32_t seq) const { return n_past_.at(static_cast<size_t>(seq)); }
    std::vector<int32_t> kept_positions(int32_t seq, int32_t layer, int32_t kv_head);

    // Computes steps with this many threads from now on. Evictions keep the number that the context was made with.
    void set_threads(int32_t n_threads);

    const DecoderParams & params() const { return params_; }
    CacheSize cache() const { return cache_; }
    // null: nothing that could be viewed
    const KvView * view() const { return controller_ ? &controller_->view() : view_.get(); }
    const Controller * controller() const { return controller_.get(); }
    Controller * controller() { return controller_.get(); }
    const DecoderCounters & counters() const { return counters_; }
    llama_context * context() { return ctx_.get(); }
    int32_t n_vocab() const { return n_vocab_; }

private:
    struct Row {
        llama_token token;
        int32_t seq;
        bool logits;
    };
    void check_tokens(const std::vector<llama_token> & tokens) const;
    void check_room(int32_t seq, size_t n) const;
    void check_protection(int32_t seq, int32_t n_protected) const;
    void check_not_interrupted() const;
    void check_status(int32_t status) const;
    void make_room(int32_t seq, int32_t n);
    void decode(const std::vector<Row> & rows);
    void evict_if_due(int32_t seq);
    void evict_now(int32_t seq);
    void reread(int32_t seq);
    bool is_computed(llama_token token) const { return !ahead_.empty() && ahead_.front() == token; }
    void take_computed();
    void load_origins(const std::vector<uint8_t> & bytes);
    // Remembers what was read last, for that.

    // Runs `work`; after an error the state of the cache is unknown, so all of it is cleared.
    void guarded(const std::function<void()> & work);

    // Made when it is first needed.
    QuestionReader & question_reader();

    DecoderParams params_;
    CacheSize cache_;
    bool was_interrupted_ = false;
    llama_context_ptr ctx_;
    int32_t n_vocab_ = 0;
    std::unique_ptr<KvView> view_;                      // without a controller, which has one
    std::optional<std::vector<uint8_t>> has_hadamard_;  // of view_, once it has been asked for
    int64_t cache_version_ = 0;
    std::shared_ptr<Controller> controller_;        // guards the memory of ctx_, which has it too
    std::vector<int64_t> n_past_;                   // [n_seq_max]
    bool has_media_ = false;                        // with more tokens than positions
    std::vector<std::vector<llama_token>> recent_;  // [n_seq_max] the newest tokens, with reread
    int32_t n_rows_ = 0;
    std::deque<llama_token> ahead_;  // behind n_past_ of sequence 0: computed, and not yet a part of it
    int32_t n_hidden_rows_ = 0;      // of logits, of these, and of those of them that were taken back
    DecoderCounters counters_;
    std::unique_ptr<QuestionReader> question_reader_;
    std::function<void(llama_context *)> set_up_;
};

}  // namespace triattn
