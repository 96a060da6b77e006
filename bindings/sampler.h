#pragma once

#include "bindings.h"

#include "sampling.h"

namespace pytriattn {

// llama.cpp's own sampler chain (common_sampler) for one sequence.
class Sampler {
public:
    Sampler(std::shared_ptr<Model> model, common_params_sampling settings);

    // Draws from the logits of a row of the context's last batch (negative: from the end) and remembers the token.
    llama_token sample(llama_context * ctx, int row);
    // Makes the sampler aware of a token that was not drawn by it (the prompt), for penalties.
    void accept(llama_token token) { common_sampler_accept(sampler_.get(), token, /*is_generated*/ false); }
    uint32_t seed() const { return common_sampler_get_seed(sampler_.get()); }

private:
    std::shared_ptr<Model> model_;
    common_sampler_ptr sampler_;
};

}  // namespace pytriattn
