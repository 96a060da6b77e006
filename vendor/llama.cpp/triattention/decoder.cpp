#include "decoder.h"

#include "batch.h"
#include "cache_devices.h"
#include "errors.h"
#include "key_feedback.h"
#include "kv_memory.h"
#include "kv_state.h"
#include "query_sets.h"
#include "rereading.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace triattn {
namespace {

constexpr int32_t LOGITS_CHUNK = 128;

const DecoderParams & checked(const DecoderParams & params) {
    check(params);
    return params;
}

// llama.cpp chooses LongRoPE's frequencies by the size of the cache; they have to be those for n_ctx positions.
void check_long_rope(const llama_model * model, const DecoderParams & params, const CacheSize & cache) {
    const int64_t threshold = long_rope_threshold(model);
    const int64_t cells = static_cast<int64_t>(cache.n_cells) * (params.kv_unified ? params.n_seq_max : 1);
    if (params.eviction && threshold > 0 && (params.n_ctx > threshold) != (cells > threshold)) {
        throw UnsupportedModelError(
            "this model has LongRoPE with frequencies for up to " + std::to_string(threshold) +
            " positions and for more; a cache of " + std::to_string(cells) +
            " cells would take the wrong ones for n_ctx " + std::to_string(params.n_ctx) +
            "; choose the long ones when the model is loaded (use_long_rope), or another n_ctx");
    }
}

}  // namespace

Decoder::Decoder(llama_model * model, const DecoderParams & params, Stats stats)
    : params_(checked(params)), n_past_(params.n_seq_max, 0), recent_(params.n_seq_max) {
    check_learned_positions(params_.n_ctx, llama_model_n_ctx_train(model), has_learned_positions(model));
    cache_ = cache_size(params_, llama_model_n_swa(model));
    if (llama_model_is_hybrid(model) && cache_.n_ubatch > params_.n_seq_max) {
        // llama.cpp's graph for Kimi Linear ends the process where sequences do not divide a step
        cache_.n_ubatch -= cache_.n_ubatch % params_.n_seq_max;
    }
    check_long_rope(model, params_, cache_);
    check_cache_devices(cache_devices(model), params_.type_k, params_.type_v);

    llama_context_params p = llama_context_default_params();
    p.n_ctx = static_cast<uint32_t>(cache_.n_cells) * static_cast<uint32_t>(params_.n_seq_max);
    p.n_batch = static_cast<uint32_t>(cache_.n_batch);
    p.n_ubatch = static_cast<uint32_t>(cache_.n_ubatch);
    p.swa_full = false;  // sliding layers hold their window, with a budget or without
    p.n_seq_max = static_cast<uint32_t>(params_.n_seq_max);
    p.n_rs_seq = static_cast<uint32_t>(params_.n_draft);  // recurrent states to go back to
    p.kv_unified = params_.kv_unified;
    p.n_threads = params_.n_threads;
    p.n_threads_batch = params_.n_threads;
    p.type_k = params_.type_k;
    p.type_v = params_.type_v;
    p.flash_attn_type = flash_attention_for(model, params_.flash_attn);
    apply(params_.rope, p);
    p.no_perf = true;
    p.abort_callback = [](void * self) {
        auto & decoder = *static_cast<Decoder *>(self);
        decoder.was_interrupted_ =
            decoder.was_interrupted_ || (decoder.params_.interrupted && decoder.params_.interrupted());
        return decoder.was_interrupted_;
    };
    p.abort_callback_data = this;
    ctx_.reset(llama_init_from_model(model, p));
    if (!ctx_) {
        throw ContextError("llama.cpp could not make a context with " + std::to_string(p.n_ctx) + " cells");
    }
    const bool has_states = llama_model_is_recurrent(model) || llama_model_is_hybrid(model);
    if (has_states && llama_n_rs_seq(ctx_.get()) < static_cast<uint32_t>(params_.n_draft)) {
        throw UnsupportedModelError("this model has recurrent states that llama.cpp cannot turn back, so tokens cannot "
                                    "be drafted for it; load it without draft_model");
    }
    n_vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model));
    check_status(feed_back_key_errors(ctx_.get(), params_.n_ctx));
    if (params_.eviction) {
        controller_ = std::make_shared<Controller>(ctx_.get(), *params_.eviction, std::move(stats), params_.n_threads);
        set_guard(ctx_.get(), controller_);
        controller_->read_standing_questions_with([this]() -> QuestionReader & { return question_reader(); });
        if (params_.eviction->reread) {
            save_place(ctx_.get(), 0, params_.n_seq_max);  // throws where a second reading could not be taken back
        }
        return;
    }
    try {
        view_ = std::make_unique<KvView>(ctx_.get());
    } catch (const UnsupportedModelError &) {
        // without a budget any model will do; there is only less to tell about its memory
    }
}

void Decoder::set_threads(int32_t n_threads) {
    DecoderParams params = params_;
    params.n_threads = n_threads;
    params_ = checked(params);
    llama_set_n_threads(ctx_.get(), n_threads, n_threads);
}

void Decoder::check_tokens(const std::vector<llama_token> & tokens) const {
    if (tokens.empty()) {
        throw InvalidTokenError("there are no tokens to read: the prompt is empty");
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab_) {
            throw InvalidTokenError("token " + std::to_string(tokens[i]) + " at index " + std::to_string(i) +
                                    " is not in the vocabulary of " + std::to_string(n_vocab_));
        }
    }
}

void Decoder::check_room(int32_t seq, size_t n) const {
    if (seq < 0 || seq >= params_.n_seq_max) {
        throw ContextError("sequence " + std::to_string(seq) + " does not exist; n_seq_max is " +
                           std::to_string(params_.n_seq_max));
    }
    const int64_t past = n_past_[static_cast<size_t>(seq)];
    const int64_t used = has_media_ && view_ ? std::max<int64_t>(past, view_->n_used(seq) - n_ahead(seq)) : past;
    const int64_t total = used + static_cast<int64_t>(n);
    if (total > params_.n_ctx) {
        throw ContextFullError(std::to_string(total) + " tokens are more than n_ctx " + std::to_string(params_.n_ctx) +
                               "; raise n_ctx (under a budget it allocates nothing) or shorten the text");
    }
}

void Decoder::guarded(const std::function<void()> & work) {
    was_interrupted_ = false;
    n_rows_ = 0;
    ++cache_version_;
    try {
        work();
    } catch (...) {
        clear_all();
        throw;
    }
}

// Devices other than the CPU do not poll while they compute, so this asks once more.
void Decoder::check_not_interrupted() const {
    if (was_interrupted_ || (params_.interrupted && params_.interrupted())) {
        throw InterruptedError("decoding was interrupted; the context has been cleared");
    }
}

void Decoder::check_status(int32_t status) const {
    check_not_interrupted();
    if (status != 0) {
        throw DecodeError(status == 1 ? "llama.cpp found no room in the KV cache; the context has been cleared"
                                      : "llama.cpp could not decode (status " + std::to_string(status) +
                                            "); the context has been cleared");
    }
}

void Decoder::decode(const std::vector<Row> & rows) {
    const auto start = std::chrono::steady_clock::now();
    Batch batch(static_cast<int32_t>(rows.size()));
    std::vector<int64_t> position = n_past_;
    int32_t n_rows = 0;
    for (const Row & row : rows) {
        batch.add(row.token, static_cast<llama_pos>(position[static_cast<size_t>(row.seq)]++), row.seq, row.logits);
        n_rows += row.logits ? 1 : 0;
    }
    const int status = llama_decode(ctx_.get(), batch.get());
    llama_synchronize(ctx_.get());
    if (controller_) {
        controller_->finish_step();
    }
    counters_.decoding_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    check_status(status);
    if (controller_ && controller_->config().reread) {
        for (const Row & row : rows) {
            remember(recent_[static_cast<size_t>(row.seq)], row.token);
        }
    }
    n_past_ = std::move(position);
    n_rows_ = n_rows;
    n_hidden_rows_ = 0;
    counters_.n_decoded += static_cast<int64_t>(rows.size());
}

void Decoder::make_room(int32_t seq, int32_t n) {
    if (controller_ && controller_->config().reread && controller_->is_due(seq)) {
        evict_now(seq);
    }
    if (controller_ && !controller_->has_room(seq, n + cache_.n_reread)) {
        evict_now(seq);
    }
}

void Decoder::evict_if_due(int32_t seq) {
    // a second reading takes llama.cpp's buffer of logits, which somebody may still want: make_room() evicts then
    if (controller_ && !controller_->config().reread && controller_->is_due(seq)) {
        evict_now(seq);
    }
}

void Decoder::evict_now(int32_t seq) {
    if (controller_->config().reread) {
        reread(seq);
    }
    controller_->evict(seq, controller_->n_protected(seq));
}

void Decoder::reread(int32_t seq) {
    const auto index = static_cast<size_t>(seq);
    read_once_more(ctx_.get(), *controller_, seq, recent_[index], n_past_[index], params_.n_seq_max,
                   [this] { check_not_interrupted(); });
}

void Decoder::check_protection(int32_t seq, int32_t n_protected) const {
    if (!controller_) {
        return;
    }
    check_protected_prompt(n_protected, controller_->config());
    if (n_protected > controller_->n_protected(seq) && controller_->has_evicted(seq)) {
        throw BudgetError(
            "more positions cannot be protected after an eviction: some may be gone; clear the sequence first");
    }
}

void Decoder::read(int32_t seq, const std::vector<llama_token> & tokens, int32_t n_protected, const RowSink & sink,
                   bool goes_on) {
    check_tokens(tokens);
    check_room(seq, tokens.size());
    check_protection(seq, n_protected);
    take_back_drafts();
    guarded([&] {
        if (controller_) {
            controller_->protect(seq, n_protected);
        }
        for (size_t done = 0; done < tokens.size();) {
            // logits of every row take n_vocab floats each, so there are fewer rows at a time
            const size_t chunk = static_cast<size_t>(sink ? std::min(cache_.chunk, LOGITS_CHUNK) : cache_.chunk);
            const size_t n = std::min(chunk, tokens.size() - done);
            make_room(seq, static_cast<int32_t>(n));
            std::vector<Row> rows;
            for (size_t i = done; i < done + n; ++i) {
                rows.push_back({tokens[i], seq, sink || i + 1 == tokens.size()});
            }
            decode(rows);
            for (size_t i = 0; sink && i < n; ++i) {
                sink(done + i, logits(static_cast<int32_t>(i)));
            }
            done += n;
            if (!params_.full_prefill || (done == tokens.size() && !goes_on)) {
                evict_if_due(seq);
            }
        }
    });
}

void Decoder::step(const std::vector<int32_t> & seqs, const std::vector<llama_token> & tokens) {
    check_tokens(tokens);
    if (seqs.size() != tokens.size()) {
        throw InvalidTokenError("step needs one token for each sequence");
    }
    std::vector<int32_t> sorted = seqs;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
        throw ContextError("a sequence may appear once in a step");
    }
    for (int32_t seq : seqs) {
        check_room(seq, 1);
    }
    if (seqs.size() == 1 && seqs[0] == 0 && is_computed(tokens[0])) {
        take_computed();
        return;
    }
    take_back_drafts();
    guarded([&] {
        std::vector<Row> rows;
        for (size_t i = 0; i < seqs.size(); ++i) {
            make_room(seqs[i], 1);
            rows.push_back({tokens[i], seqs[i], true});
        }
        decode(rows);
        for (int32_t seq : seqs) {
            evict_if_due(seq);
        }
    });
}

int32_t Decoder::score_step() const {
    return std::min(params_.eviction ? params_.eviction->interval : EvictionConfig().interval, cache_.n_batch);
}

std::vector<TokenScore> Decoder::score(const std::vector<llama_token> & tokens, size_t first) {
    check_tokens(tokens);
    check_room(0, tokens.size());
    if (first < 1 || first > tokens.size()) {
        throw InvalidTokenError("first is " + std::to_string(first) + ", it must be from 1 to " +
                                std::to_string(tokens.size()) + ", the number of tokens");
    }
    std::vector<TokenScore> result;
    result.reserve(tokens.size() - first);
    take_back_drafts();
    guarded([&] {
        for (size_t done = 0; done < tokens.size();) {
            int64_t n = std::min<int64_t>(score_step(), static_cast<int64_t>(tokens.size() - done));
            make_room(0, 1);
            if (controller_) {
                // end the step where decoding would evict
                const int64_t used = controller_->view().n_used(0);
                n = std::min({n, params_.eviction->budget + params_.eviction->interval - used,
                              cache_.n_cells - cache_.n_reread - used});
            }
            const size_t end = done + static_cast<size_t>(n);
            std::vector<Row> rows;
            for (size_t i = done; i < end; ++i) {
                rows.push_back({tokens[i], 0, true});
            }
            decode(rows);
            for (size_t i = std::max(done, first - 1); i < end && i + 1 < tokens.size(); ++i) {
                const float * row = logits(static_cast<int32_t>(i - done));
                const llama_token token = tokens[i + 1];
                result.push_back({logprob(row, token), std::max_element(row, row + n_vocab_) - row == token});
            }
            done = end;
            evict_if_due(0);
        }
    });
    return result;
}

std::vector<float> Decoder::logprobs(const std::vector<llama_token> & tokens) {
    check_tokens(tokens);
    if (static_cast<int64_t>(tokens.size()) > params_.n_ctx) {
        throw ContextFullError(std::to_string(tokens.size()) + " tokens are more than n_ctx " +
                               std::to_string(params_.n_ctx) + "; raise n_ctx or shorten the text");
    }
    clear(0);
    std::vector<float> result;
    for (const TokenScore & scored : score(tokens, 1)) {
        result.push_back(scored.logprob);
    }
    return result;
}

float Decoder::logprob(const float * logits, llama_token token) const {
    if (token < 0 || token >= n_vocab_) {
        throw InvalidTokenError("token " + std::to_string(token) + " is not in the vocabulary of " +
                                std::to_string(n_vocab_));
    }
    const float maximum = *std::max_element(logits, logits + n_vocab_);
    double sum = 0;
    for (int32_t i = 0; i < n_vocab_; ++i) {
        sum += std::exp(logits[i] - maximum);
    }
    return static_cast<float>(logits[token] - maximum - std::log(sum));
}

int32_t Decoder::output_of(int32_t row) const {
    if (row < -n_rows_ || row >= n_rows_) {
        throw ContextError("there are logits for " + std::to_string(n_rows_) + " rows, not for row " +
                           std::to_string(row));
    }
    return (row < 0 ? row : row - n_rows_) - n_hidden_rows_;
}

const float * Decoder::logits(int32_t row) const {
    const float * values = llama_get_logits_ith(ctx_.get(), output_of(row));
    if (values == nullptr) {
        throw DecodeError("llama.cpp gave no logits");
    }
    return values;
}

}  // namespace triattn
