#include "sampler.h"

#include <cmath>

namespace pytriattn {
namespace {

std::unique_ptr<Sampler> make(std::shared_ptr<Model> model, float temperature, int top_k, float top_p, float min_p, float repeat_penalty,
                              float frequency_penalty, float presence_penalty, int penalty_last_n, uint32_t seed, bool ignore_eos) {
    common_params_sampling params;
    params.temp            = temperature;
    params.top_k           = top_k;
    params.top_p           = top_p;
    params.min_p           = min_p;
    params.penalty_repeat  = repeat_penalty;
    params.penalty_freq    = frequency_penalty;
    params.penalty_present = presence_penalty;
    params.penalty_last_n  = penalty_last_n;
    params.seed            = seed;
    params.no_perf         = true;
    if (ignore_eos) {
        for (llama_token token = 0; token < llama_vocab_n_tokens(model->vocab()); ++token) {
            if (llama_vocab_is_eog(model->vocab(), token)) {
                params.logit_bias.push_back({token, -INFINITY});
            }
        }
    }
    return std::make_unique<Sampler>(std::move(model), std::move(params));
}

}  // namespace

Sampler::Sampler(std::shared_ptr<Model> model, common_params_sampling params) : model_(std::move(model)) {
    sampler_.reset(common_sampler_init(model_->model.get(), params));
    if (!sampler_) {
        throw triattn::ContextError("llama.cpp could not make a sampler");
    }
}

llama_token Sampler::sample(llama_context * ctx, int row) {
    const llama_token token = common_sampler_sample(sampler_.get(), ctx, row);
    common_sampler_accept(sampler_.get(), token, /*is_generated*/ true);
    return token;
}

void add_sampler(py::module_ & m) {
    m.attr("RANDOM_SEED") = LLAMA_DEFAULT_SEED;
    py::class_<Sampler>(m, "Sampler")
        .def(py::init(&make), py::kw_only(), py::arg("model"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"), py::arg("min_p"),
             py::arg("repeat_penalty"), py::arg("frequency_penalty"), py::arg("presence_penalty"), py::arg("penalty_last_n"), py::arg("seed"),
             py::arg("ignore_eos"))
        .def("accept", &Sampler::accept, py::arg("token"))
        .def_property_readonly("seed", &Sampler::seed);
}

}  // namespace pytriattn
