#include "question_reader.h"

#include "attention_probe.h"
#include "errors.h"

#include <algorithm>
#include <numeric>
#include <string>

namespace triattn {

void check_question_length(int64_t n_tokens, int32_t budget) {
    const std::string question = "a question of " + std::to_string(n_tokens) + " tokens is ";
    if (n_tokens > QuestionReader::MAX_TOKENS) {
        throw InvalidTokenError(question + "too long; use at most " + std::to_string(QuestionReader::MAX_TOKENS));
    }
    if (n_tokens > budget) {
        throw BudgetError(question + "longer than the budget of " + std::to_string(budget) +
                          ", which could not even hold the question; name fewer tokens, or raise the budget");
    }
}

QuestionReader::QuestionReader(llama_model * model, const DecoderParams & params) : interrupted_(params.interrupted) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    if (llama_vocab_get_add_bos(vocab)) {
        begin_.push_back(llama_vocab_bos(vocab));
    }
    llama_context_params p = llama_context_default_params();
    p.n_ctx = 256;  // llama.cpp rounds up to this
    p.n_batch = MAX_TOKENS + 1;
    p.n_ubatch = p.n_batch;
    p.n_seq_max = 1;
    p.n_threads = params.n_threads;
    p.n_threads_batch = params.n_threads;
    p.type_k = GGML_TYPE_F16;  // never multiplied by a Hadamard matrix
    p.type_v = GGML_TYPE_F16;
    p.flash_attn_type = flash_attention_for(model, params.flash_attn);
    apply(params.rope, p);
    p.no_perf = true;
    p.abort_callback = [](void * self) {
        auto & reader = *static_cast<QuestionReader *>(self);
        reader.was_interrupted_ = reader.was_interrupted_ || (reader.interrupted_ && reader.interrupted_());
        return reader.was_interrupted_;
    };
    p.abort_callback_data = this;
    ctx_.reset(llama_init_from_model(model, p));
    if (!ctx_) {
        throw ContextError("llama.cpp could not make a context of 256 cells to read questions with; use question=None");
    }
    view_ = std::make_unique<KvView>(ctx_.get());
    capture_ = std::make_unique<QueryCapture>(*view_, readers_of(*view_, probe_attention(*view_)));
}

LayerQueries QuestionReader::read(const std::vector<llama_token> & tokens) {
    llama_memory_clear(llama_get_memory(ctx_.get()), /*data*/ true);
    std::vector<llama_token> all = begin_;
    all.insert(all.end(), tokens.begin(), tokens.end());
    std::vector<int32_t> positions(all.size());
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<uint8_t> wanted(all.size(), 1);
    std::fill(wanted.begin(), wanted.begin() + static_cast<std::ptrdiff_t>(begin_.size()), uint8_t{0});
    was_interrupted_ = false;
    capture_->start(std::move(positions), std::move(wanted));
    const int status = llama_decode(ctx_.get(), llama_batch_get_one(all.data(), static_cast<int32_t>(all.size())));
    llama_synchronize(ctx_.get());
    LayerQueries queries = capture_->stop();
    if (was_interrupted_) {
        throw InterruptedError("reading the question was interrupted");
    }
    if (status != 0) {
        throw DecodeError("llama.cpp could not decode the question (status " + std::to_string(status) + ")");
    }
    return queries;
}

}  // namespace triattn
