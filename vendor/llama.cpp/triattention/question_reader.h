// Reads a question alone, before the text that it is asked about.
#pragma once

#include "attention.h"
#include "decoder_params.h"
#include "kv_view.h"
#include "query_capture.h"

#include "llama-cpp.h"
#include "llama.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace triattn {

// Checks that so many tokens can be a question. Throws InvalidTokenError, BudgetError.
void check_question_length(int64_t n_tokens, int32_t budget);

// Has a small context of its own, so that the caches of another one are never touched.
class QuestionReader {
public:
    static constexpr int32_t MAX_TOKENS = 128;

    // `params`: of the context that the question is for. Throws ContextError.
    QuestionReader(llama_model * model, const DecoderParams & params);

    // The queries of 1 to MAX_TOKENS tokens, read from position n_before() on (behind the token that begins a text, if
    // the model has one), as attention to a cache without Hadamard matrix has them. Throws DecodeError,
    // InterruptedError.
    LayerQueries read(const std::vector<llama_token> & tokens);

    int32_t n_before() const { return static_cast<int32_t>(begin_.size()); }  // the position of the first token
    llama_context * context() { return ctx_.get(); }

private:
    std::function<bool()> interrupted_;
    bool was_interrupted_ = false;
    std::vector<llama_token> begin_;  // what a text begins with: one token or none
    llama_context_ptr ctx_;
    std::unique_ptr<KvView> view_;
    std::unique_ptr<QueryCapture> capture_;
};

}  // namespace triattn
