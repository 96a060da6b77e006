#pragma once

#include "bindings.h"
#include "collected.h"

#include "sampling.h"

namespace pytriattn {

// llama.cpp's own sampler chain (common_sampler) for one sequence.
class Sampler {
public:
    Sampler(std::shared_ptr<Model> model, common_params_sampling settings);

    // Draws from the logits of a row of the context's last batch (negative: from the end) and remembers the token. May
    // be called without the GIL. Throws GrammarError (without a grammar ValueError) if no token can be drawn.
    llama_token sample(llama_context * ctx, int row);

    using LogitsProcessor = py::typing::Callable<array<float>(array<llama_token>, array<float>)>;
    // `processor(tokens, logits)` is called before each token is drawn and returns the logits to draw from; `tokens`
    // begin with `prompt`.
    void set_logits_processor(LogitsProcessor processor, std::vector<llama_token> prompt);

    // Makes the sampler aware of a token that was not drawn by it (the prompt), for penalties.
    void accept(llama_token token) { common_sampler_accept(sampler_.get(), token, /*is_generated*/ false); }
    uint32_t seed() const { return common_sampler_get_seed(sampler_.get()); }

    // For Python's collector: the processor may refer to what holds the sampler.
    std::vector<PyObject *> held() const { return {processor_.ptr()}; }
    void drop_held() { processor_ = py::object(); }

private:
    // Throws if llama.cpp had no token left and took one that must not be drawn.
    void check_drawn() const;
    void accept_drawn(llama_token token);

    // Puts what the processor makes of the logits into `out`. Call with the GIL.
    void process(const std::vector<float> & logits, float * out) const;

    std::shared_ptr<Model> model_;
    bool has_grammar_;
    common_sampler_ptr sampler_;
    py::object processor_;  // null: none
    std::vector<llama_token> tokens_;
};

}  // namespace pytriattn
