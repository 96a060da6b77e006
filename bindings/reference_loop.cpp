// A greedy decoding loop over llama.cpp with nothing of ours in it: what tools/ compares our own loop with.
#include "bindings.h"
#include "repr.h"

#include <chrono>

namespace pytriattn {
namespace {

struct SamplerFree {
    void operator()(llama_sampler * s) const { llama_sampler_free(s); }
};

struct ReferenceRun {
    double seconds;
    std::vector<llama_token> tokens;
};

ReferenceRun run(const Model & model, const array<llama_token> & prompt, int n_generate, int n_ctx, int n_threads) {
    std::vector<llama_token> tokens = to_vector(prompt);
    std::vector<llama_token> generated;
    const GilRelease release;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(n_ctx);
    params.n_threads = n_threads;
    params.n_threads_batch = n_threads;
    const llama_context_ptr ctx(llama_init_from_model(model.model.get(), params));
    if (!ctx) {
        throw triattn::ContextError("llama.cpp could not make a context");
    }
    const std::unique_ptr<llama_sampler, SamplerFree> greedy(llama_sampler_init_greedy());
    for (size_t done = 0; done < tokens.size();) {
        const size_t n = std::min<size_t>(params.n_batch, tokens.size() - done);
        if (llama_decode(ctx.get(), llama_batch_get_one(tokens.data() + done, static_cast<int32_t>(n))) != 0) {
            throw triattn::DecodeError("llama.cpp could not decode");
        }
        done += n;
    }
    llama_synchronize(ctx.get());
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < n_generate; ++i) {
        generated.push_back(llama_sampler_sample(greedy.get(), ctx.get(), -1));
        if (llama_decode(ctx.get(), llama_batch_get_one(&generated.back(), 1)) != 0) {
            throw triattn::DecodeError("llama.cpp could not decode");
        }
    }
    llama_synchronize(ctx.get());
    return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), generated};
}

}  // namespace

void add_reference_loop(py::module_ & testing) {
    auto reference = py::class_<ReferenceRun>(testing, "ReferenceRun", "A run of reference_loop().")
                         .def_readonly("seconds", &ReferenceRun::seconds, "Seconds of the steps after the prompt.")
                         .def_readonly("tokens", &ReferenceRun::tokens, "The tokens that were drawn.");
    add_repr(reference, {"seconds", "tokens"});
    testing.def("reference_loop", &run, py::arg("model"), py::arg("prompt"), py::kw_only(), py::arg("n_generate"),
                py::arg("n_ctx"), py::arg("n_threads"),
                "Decode greedily over llama.cpp alone, n_generate tokens after the prompt.");
}

}  // namespace pytriattn
