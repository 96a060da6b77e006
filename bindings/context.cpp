// The decoding context. Every method that computes releases the GIL, polls for signals and refuses a second thread.
#include "context.h"
#include "sampler.h"

#include <algorithm>
#include <numeric>

namespace pytriattn {
namespace {

using triattn::Decoder;

using TokenLogprob = std::pair<llama_token, float>;
using Logprobs = std::pair<float, std::vector<TokenLogprob>>;  // of the chosen token, and of the best ones

Logprobs find_logprobs(const Decoder & decoder, const float * logits, llama_token chosen, int n_top) {
    std::vector<llama_token> order(static_cast<size_t>(decoder.n_vocab()));
    std::iota(order.begin(), order.end(), 0);
    const auto n = static_cast<std::ptrdiff_t>(std::clamp<int>(n_top, 0, decoder.n_vocab()));
    std::partial_sort(order.begin(), order.begin() + n, order.end(),
                      [&](llama_token a, llama_token b) { return logits[a] > logits[b]; });
    const float of_chosen = decoder.logprob(logits, chosen);
    std::vector<TokenLogprob> top;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
        // the normalisation is the same for all tokens of a row
        top.emplace_back(order[static_cast<size_t>(i)],
                         of_chosen + (logits[order[static_cast<size_t>(i)]] - logits[chosen]));
    }
    return {of_chosen, std::move(top)};
}

triattn::FlashAttention flash_attention(const std::string & name) {
    if (name == "auto") return triattn::FlashAttention::automatic;
    if (name == "on") return triattn::FlashAttention::on;
    if (name == "off") return triattn::FlashAttention::off;
    throw triattn::ContextError("flash_attn is '" + name + "', it must be 'auto', 'on' or 'off'");
}

ggml_type cache_type(const std::string & name) {
    // the types that llama.cpp's own tools accept for a cache
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                           GGML_TYPE_IQ4_NL, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1}) {
        if (name == ggml_type_name(type)) {
            return type;
        }
    }
    throw triattn::ContextError("cache type '" + name +
                                "' is unknown; use one of f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1");
}

std::unique_ptr<Context> make(std::shared_ptr<Model> model, int64_t n_ctx, int n_batch, int n_ubatch, int n_threads,
                              int n_seq_max, bool kv_unified, const std::string & type_k, const std::string & type_v,
                              const std::string & flash_attn, const triattn::RopeOverrides & rope,
                              const std::optional<triattn::EvictionConfig> & eviction, bool full_prefill,
                              const std::optional<triattn::Stats> & stats) {
    triattn::DecoderParams params;
    params.n_ctx = n_ctx;
    params.n_batch = n_batch;
    params.n_ubatch = n_ubatch;
    params.n_threads = n_threads;
    params.n_seq_max = n_seq_max;
    params.kv_unified = kv_unified;
    params.type_k = cache_type(type_k);
    params.type_v = cache_type(type_v);
    params.flash_attn = flash_attention(flash_attn);
    params.rope = rope;
    params.eviction = eviction;
    params.full_prefill = full_prefill;
    return std::make_unique<Context>(std::move(model), params, stats.value_or(triattn::Stats{}));
}

}  // namespace

void add_context(py::module_ & m) {
    py::class_<triattn::EvictionConfig>(m, "EvictionConfig")
        .def(py::init([](const std::string & mode, int budget, int interval, int window, int n_sink, uint64_t seed,
                         const std::vector<int32_t> & offsets, bool use_trig, bool use_norm, bool use_unrotated) {
                 triattn::EvictionConfig config;
                 config.mode = triattn::mode_from_name(mode);
                 config.budget = budget;
                 config.interval = interval;
                 config.window = window;
                 config.n_sink = n_sink;
                 config.seed = seed;
                 config.score = score_options(offsets, use_trig, use_norm, use_unrotated);
                 triattn::check(config);
                 return config;
             }),
             py::kw_only(), py::arg("mode"), py::arg("budget"), py::arg("interval") = 128, py::arg("window") = 64,
             py::arg("n_sink") = 4, py::arg("seed") = 0,
             py::arg_v("offsets", triattn::ScoreOptions().offsets, "DEFAULT_OFFSETS"), py::arg("use_trig") = true,
             py::arg("use_norm") = true, py::arg("use_unrotated") = true)
        .def_property_readonly("moves_rows",
                               [](const triattn::EvictionConfig & c) { return triattn::moves_rows(c.mode); })
        .def_property_readonly("needs_scores",
                               [](const triattn::EvictionConfig & c) { return triattn::needs_scores(c.mode); });

    auto context =
        py::class_<Context>(m, "Context")
            .def(py::init(&make), py::kw_only(), py::arg("model"), py::arg("n_ctx"), py::arg("n_batch") = 2048,
                 py::arg("n_ubatch") = 512, py::arg("n_threads") = 1, py::arg("n_seq_max") = 1,
                 py::arg("kv_unified") = false, py::arg("type_k") = "f16", py::arg("type_v") = "f16",
                 py::arg("flash_attn") = "auto", py::arg_v("rope", triattn::RopeOverrides(), "RopeOverrides()"),
                 py::arg("eviction") = py::none(), py::arg("full_prefill") = false, py::arg("stats") = py::none())
            .def(
                "read",
                [](Context & self, int seq, const array<llama_token> & tokens, int n_protected) {
                    const auto ids = to_vector(tokens);
                    self.run_without_gil([&](Decoder & d) { d.read(seq, ids, n_protected); });
                },
                py::arg("seq"), py::arg("tokens"), py::arg("n_protected") = 0)
            .def(
                "read_with_logprobs",
                [](Context & self, int seq, const array<llama_token> & tokens, int n_protected, int n_top) {
                    const auto ids = to_vector(tokens);
                    return self.run_without_gil([&](Decoder & d) {
                        std::vector<Logprobs> result;
                        d.read(seq, ids, n_protected, [&](size_t i, const float * logits) {
                            if (i + 1 < ids.size()) {
                                result.push_back(find_logprobs(d, logits, ids[i + 1], n_top));
                            }
                        });
                        return result;
                    });
                },
                py::arg("seq"), py::arg("tokens"), py::arg("n_protected"), py::arg("n_top"))
            .def(
                "step",
                [](Context & self, const std::vector<int32_t> & seqs, const std::vector<llama_token> & tokens) {
                    self.run_without_gil([&](Decoder & d) { d.step(seqs, tokens); });
                },
                py::arg("seqs"), py::arg("tokens"))
            .def(
                "sample",
                [](Context & self, Sampler & sampler) {
                    return self.run_without_gil([&](Decoder & d) {
                        d.logits(-1);  // throws if nothing has been read
                        return sampler.sample(d.context(), -1);
                    });
                },
                py::arg("sampler"))
            .def(
                "step_and_sample",
                [](Context & self, llama_token token, Sampler & sampler) {
                    return self.run_without_gil([&](Decoder & d) {
                        d.step({0}, {token});
                        return sampler.sample(d.context(), -1);
                    });
                },
                py::arg("token"), py::arg("sampler"))
            .def(
                "step_and_sample_each",
                [](Context & self, const std::vector<int32_t> & seqs, const std::vector<llama_token> & tokens,
                   const std::vector<Sampler *> & samplers) {
                    if (samplers.size() != seqs.size()) {
                        throw triattn::ContextError("each sequence needs a sampler");
                    }
                    return self.run_without_gil([&](Decoder & d) {
                        d.step(seqs, tokens);
                        std::vector<llama_token> drawn;
                        for (size_t i = 0; i < samplers.size(); ++i) {
                            drawn.push_back(samplers[i]->sample(d.context(), static_cast<int>(i)));
                        }
                        return drawn;
                    });
                },
                py::arg("seqs"), py::arg("tokens"), py::arg("samplers"))
            .def(
                "logprobs",
                [](Context & self, const array<llama_token> & tokens) {
                    const auto ids = to_vector(tokens);
                    const auto values = self.run_without_gil([&](Decoder & d) { return d.logprobs(ids); });
                    return to_array(values, {static_cast<py::ssize_t>(values.size())});
                },
                py::arg("tokens"))
            .def(
                "score",
                [](Context & self, const array<llama_token> & tokens, size_t first) {
                    const auto ids = to_vector(tokens);
                    const auto scores = self.run_without_gil([&](Decoder & d) { return d.score(ids, first); });
                    std::vector<float> logprobs;
                    std::vector<uint8_t> is_best;
                    for (const auto & score : scores) {
                        logprobs.push_back(score.logprob);
                        is_best.push_back(score.is_best ? 1 : 0);
                    }
                    const auto n = static_cast<py::ssize_t>(scores.size());
                    return py::make_tuple(to_array(std::move(logprobs), {n}), to_array(std::move(is_best), {n}));
                },
                py::arg("tokens"), py::arg("first"))
            .def_property_readonly(
                "score_step",
                [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.score_step(); }); })
            .def(
                "row_logprobs",
                [](Context & self, int row, llama_token chosen, int n_top) {
                    return self.run_with_gil(
                        [&](Decoder & d) { return find_logprobs(d, d.logits(row), chosen, n_top); });
                },
                py::arg("row"), py::arg("chosen"), py::arg("n_top"))
            .def(
                "logits",
                [](Context & self, int row) {
                    return self.run_with_gil([&](Decoder & d) { return self.logits_rows().get(d, row); });
                },
                py::arg("row") = 0, "Logits of a row of the last step, read-only: no later step changes them.")
            .def(
                "truncate",
                [](Context & self, int seq, int64_t n, bool keep_evicted) {
                    return self.run_with_gil([&](Decoder & d) { return d.truncate(seq, n, keep_evicted); });
                },
                py::arg("seq"), py::arg("n"), py::arg("keep_evicted") = false)
            .def(
                "has_evicted",
                [](Context & self, int seq) {
                    return self.run_with_gil(
                        [&](Decoder & d) { return d.controller() != nullptr && d.controller()->has_evicted(seq); });
                },
                py::arg("seq") = 0)
            .def(
                "clear", [](Context & self, int seq) { self.run_with_gil([&](Decoder & d) { d.clear(seq); }); },
                py::arg("seq") = 0)
            .def(
                "evict",
                [](Context & self, int seq, int n_protected) {
                    self.run_without_gil([&](Decoder & d) {
                        if (d.controller() != nullptr) {
                            d.controller()->evict(seq, n_protected);
                        }
                    });
                },
                py::arg("seq") = 0, py::arg("n_protected") = 0)
            .def(
                "n_tokens",
                [](Context & self, int seq) { return self.run_with_gil([&](Decoder & d) { return d.n_tokens(seq); }); },
                py::arg("seq") = 0)
            .def_property_readonly(
                "chunk", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.cache().chunk; }); })
            .def_property_readonly(
                "n_ubatch",
                [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.cache().n_ubatch; }); })
            .def_property_readonly(
                "n_rows", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.n_rows(); }); })
            .def_property_readonly(
                "n_seq_max",
                [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.params().n_seq_max; }); })
            .def("save",
                 [](Context & self) {
                     const Decoder::Saved saved = self.run_without_gil([](Decoder & d) { return d.save(); });
                     const auto bytes = [](const std::vector<uint8_t> & v) {
                         return py::bytes(reinterpret_cast<const char *>(v.data()), v.size());
                     };
                     return std::make_tuple(bytes(saved.cells), bytes(saved.origins), saved.n_past, saved.n_protected);
                 })
            .def(
                "load",
                [](Context & self, const py::bytes & cells, const py::bytes & origins, int64_t n_past,
                   int32_t n_protected) {
                    const auto content = [](const py::bytes & b) {
                        const std::string_view v = b;
                        return std::vector<uint8_t>(v.begin(), v.end());
                    };
                    const Decoder::Saved saved{content(cells), content(origins), n_past, n_protected};
                    self.run_without_gil([&](Decoder & d) { d.load(saved); });
                },
                py::arg("cells"), py::arg("origins"), py::arg("n_past"), py::arg("n_protected"))
            .def("cancel", &Context::cancel)
            .def("start", &Context::start)
            .def("close", &Context::close)
            .def_property_readonly("closed", &Context::closed);
    add_inspection(m, context);
}

}  // namespace pytriattn
