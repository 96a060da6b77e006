// A greedy decoding loop over llama.cpp with nothing of ours in it: what tools/ compares our own loop with.
#include "bindings.h"

#include <chrono>

namespace pytriattn {
namespace {

struct SamplerFree {
    void operator()(llama_sampler * s) const { llama_sampler_free(s); }
};

std::pair<double, std::vector<llama_token>> run(const Model & model, const array<llama_token> & prompt, int n_generate,
                                                int n_ctx, int n_threads) {
    std::vector<llama_token> tokens = to_vector(prompt);
    std::vector<llama_token> generated;
    const py::gil_scoped_release release;
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

void add_reference_loop(py::module_ & m) {
    m.def("reference_loop", &run, py::arg("model"), py::arg("prompt"), py::kw_only(), py::arg("n_generate"),
          py::arg("n_ctx"), py::arg("n_threads"),
          "Seconds for n_generate greedy steps after the prompt, and the tokens.");
}

}  // namespace pytriattn
