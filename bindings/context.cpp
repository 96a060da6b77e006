// The decoding context. Every method that computes releases the GIL, polls for signals and refuses a second thread.
#include "context.h"

#include "records.h"
#include "sampler.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace pytriattn {
namespace {

using triattn::Decoder;

TokenLogprobs find_logprobs(const Decoder & decoder, const float * logits, llama_token chosen, int n_top) {
    std::vector<llama_token> order(static_cast<size_t>(decoder.n_vocab()));
    std::iota(order.begin(), order.end(), 0);
    const auto n = static_cast<std::ptrdiff_t>(std::clamp<int>(n_top, 0, decoder.n_vocab()));
    std::partial_sort(order.begin(), order.begin() + n, order.end(),
                      [&](llama_token a, llama_token b) { return logits[a] > logits[b]; });
    TokenLogprobs result{decoder.logprob(logits, chosen), {}};
    for (auto token = order.begin(); token != order.begin() + n; ++token) {
        // the normalisation is the same for all tokens of a row
        result.top.push_back({*token, result.logprob + (logits[*token] - logits[chosen])});
    }
    return result;
}

std::unique_ptr<Context> make(std::shared_ptr<Model> model, const triattn::DecoderParams & params,
                              const std::optional<triattn::Stats> & stats) {
    return std::make_unique<Context>(std::move(model), params, stats.value_or(triattn::Stats{}));
}

// -- reading and scoring

void read(Context & self, int seq, const array<llama_token> & tokens, int n_protected, bool goes_on) {
    const auto ids = to_vector(tokens);
    self.run_without_gil([&](Decoder & d) { d.read(seq, ids, n_protected, {}, goes_on); });
}

std::vector<TokenLogprobs> read_with_logprobs(Context & self, int seq, const array<llama_token> & tokens,
                                              int n_protected, int n_top) {
    const auto ids = to_vector(tokens);
    return self.run_without_gil([&](Decoder & d) {
        std::vector<TokenLogprobs> result;
        d.read(seq, ids, n_protected, [&](size_t i, const float * logits) {
            if (i + 1 < ids.size()) {
                result.push_back(find_logprobs(d, logits, ids[i + 1], n_top));
            }
        });
        return result;
    });
}

void step(Context & self, const std::vector<int32_t> & seqs, const std::vector<llama_token> & tokens) {
    self.run_without_gil([&](Decoder & d) { d.step(seqs, tokens); });
}

array<float> logprobs(Context & self, const array<llama_token> & tokens) {
    const auto ids = to_vector(tokens);
    const auto values = self.run_without_gil([&](Decoder & d) { return d.logprobs(ids); });
    return to_array(values, {static_cast<py::ssize_t>(values.size())});
}

TokenScores score(Context & self, const array<llama_token> & tokens, size_t first) {
    const auto ids = to_vector(tokens);
    TokenScores result;
    for (const triattn::TokenScore & token : self.run_without_gil([&](Decoder & d) { return d.score(ids, first); })) {
        result.logprobs.push_back(token.logprob);
        result.is_best.push_back(token.is_best ? 1 : 0);
    }
    return result;
}

void add_reading(py::class_<Context> & context) {
    context
        .def(
            "read", &read, py::arg("seq"), py::arg("tokens"), py::arg("n_protected") = 0, py::arg("goes_on") = false,
            "Append tokens to a sequence. The first `n_protected` positions of it are never evicted. `goes_on`: more of "
            "the same prompt follows.")
        .def("read_with_logprobs", &read_with_logprobs, py::arg("seq"), py::arg("tokens"), py::arg("n_protected"),
             py::arg("n_top"),
             "The same, with the log-probability of each token but the first, and of the `n_top` likeliest in its "
             "place.")
        .def("step", &step, py::arg("seqs"), py::arg("tokens"),
             "Append one token to each of these different sequences.")
        .def("logprobs", &logprobs, py::arg("tokens"),
             "Clear sequence 0 and read tokens into it as decoding would. Returns ln p(tokens[i+1] | tokens[..i]), "
             "float32 [n_tokens - 1].")
        .def("score", &score, py::arg("tokens"), py::arg("first"),
             "Append tokens to sequence 0 as decoding would. Returns how well tokens[first:] were predicted.")
        .def(
            "set_question",
            [](Context & self, int seq, const array<llama_token> & tokens, int position) {
                self.run_without_gil([&, ids = to_vector(tokens)](Decoder & d) { d.set_question(seq, ids, position); });
            },
            py::arg("seq"), py::arg("tokens"), py::arg("position"),
            "From now on choose the keys that these tokens ask for, which stand from `position` on; none: no question "
            "any more. Nothing happens in modes that take no questions.")
        .def_property_readonly(
            "takes_questions",
            [](Context & self) {
                return self.run_with_gil(
                    [](Decoder & d) { return d.controller() != nullptr && d.controller()->takes_questions(); });
            },
            "Whether the mode takes questions.")
        .def_property_readonly(
            "n_until_eviction",
            [](Context & self) {
                return self.run_with_gil([](Decoder & d) -> std::optional<int32_t> {
                    return d.controller() != nullptr ? std::optional(d.controller()->until_eviction(0) + d.n_ahead(0))
                                                     : std::nullopt;
                });
            },
            "Tokens that sequence 0 can read until it is evicted from; None without a budget.")
        .def_property_readonly(
            "score_step", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.score_step(); }); },
            "Tokens in a whole step of score().");
}

// -- sampling and logits

llama_token sample(Context & self, Sampler & sampler) {
    return self.run_without_gil([&](Decoder & d) {
        return sampler.sample(d.context(), d.output_of(-1));  // throws if nothing has been read
    });
}

llama_token step_and_sample(Context & self, llama_token token, Sampler & sampler, const array<llama_token> & drafts) {
    const auto ahead = to_vector(drafts);
    return self.run_without_gil([&](Decoder & d) {
        d.step_ahead(token, ahead);
        return sampler.sample(d.context(), d.output_of(-1));
    });
}

std::vector<llama_token> step_and_sample_each(Context & self, const std::vector<int32_t> & seqs,
                                              const std::vector<llama_token> & tokens,
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
}

TokenLogprobs row_logprobs(Context & self, int row, llama_token chosen, int n_top) {
    return self.run_with_gil([&](Decoder & d) { return find_logprobs(d, d.logits(row), chosen, n_top); });
}

array<float> logits(Context & self, int row) {
    return self.run_with_gil([&](Decoder & d) { return self.logits_rows().get(d, row); });
}

void add_sampling(py::class_<Context> & context) {
    context.def("sample", &sample, py::arg("sampler"), "Draw a token from the last row of logits.")
        .def("step_and_sample", &step_and_sample, py::arg("token"), py::arg("sampler"),
             py::arg_v("drafts", array<llama_token>(0), "()"),
             "Append a token to sequence 0 and draw the next one. `drafts`, at most max_drafts(token) of them, are "
             "computed in the same step; when they are appended next, in their order, that costs no step. Any other "
             "call takes the rest of them back.")
        .def(
            "max_drafts",
            [](Context & self, llama_token token) {
                return self.run_without_gil([&](Decoder & d) { return d.max_drafts(token); });
            },
            py::arg("token"),
            "How many drafts may follow a token that is appended next; 0: none, or the token was drafted itself.")
        .def("step_and_sample_each", &step_and_sample_each, py::arg("seqs"), py::arg("tokens"), py::arg("samplers"),
             "Append a token to each of these sequences and draw the next one of each with its own sampler.")
        .def("row_logprobs", &row_logprobs, py::arg("row"), py::arg("chosen"), py::arg("n_top"),
             "The log-probability of a token under a row of logits, and the `n_top` likeliest tokens.")
        .def("logits", &logits, py::arg("row") = 0,
             "Logits of a row of the last step, read-only: no later step changes them.")
        .def_property_readonly(
            "n_rows", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.n_rows(); }); },
            "Rows of logits that the last step left.");
}

// -- sequences

int64_t truncate(Context & self, int seq, int64_t n, bool keep_evicted) {
    return self.run_with_gil([&](Decoder & d) { return d.truncate(seq, n, keep_evicted); });
}

bool has_evicted(Context & self, int seq) {
    return self.run_with_gil(
        [&](Decoder & d) { return d.controller() != nullptr && d.controller()->has_evicted(seq); });
}

void add_sequences(py::class_<Context> & context) {
    context
        .def(
            "n_tokens",
            [](Context & self, int seq) { return self.run_with_gil([&](Decoder & d) { return d.n_tokens(seq); }); },
            py::arg("seq") = 0, "Tokens that a sequence has read.")
        .def("truncate", &truncate, py::arg("seq"), py::arg("n"), py::arg("keep_evicted") = false,
             "Cut a sequence back to its first `n` positions. Returns n, or 0 if that is impossible; then it has been "
             "cleared. `keep_evicted`: an eviction before position n is no obstacle.")
        .def("has_evicted", &has_evicted, py::arg("seq") = 0, "Whether anything of a sequence has been evicted.")
        .def(
            "clear", [](Context & self, int seq) { self.run_with_gil([&](Decoder & d) { d.clear(seq); }); },
            py::arg("seq") = 0, "Forget a sequence.")
        .def(
            "evict",
            [](Context & self, int seq, int n_protected) {
                self.run_without_gil([&](Decoder & d) { d.evict(seq, n_protected); });
            },
            py::arg("seq") = 0, py::arg("n_protected") = 0,
            "Prune a sequence's cache to the budget now, if it holds more. The first `n_protected` positions stay.")
        .def(
            "save", [](Context & self) { return self.run_without_gil([](Decoder & d) { return d.save(); }); },
            "The sequence of a context that has one alone.")
        .def(
            "load",
            [](Context & self, const triattn::SavedSequence & saved) {
                self.run_without_gil([&](Decoder & d) { d.load(saved); });
            },
            py::arg("saved"), "Put a saved sequence in place of the context's. Raises DecodeError if it does not fit.");
}

// -- the context itself

void add_facts(py::class_<Context> & context) {
    context
        .def_property_readonly(
            "params", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.params(); }); },
            "What it was made with.")
        .def_property_readonly(
            "chunk", [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.cache().chunk; }); },
            "Tokens of a prompt in one step.")
        .def_property_readonly(
            "n_ubatch",
            [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.cache().n_ubatch; }); },
            "Tokens computed at once.")
        .def_property_readonly(
            "n_seq_max",
            [](Context & self) { return self.run_with_gil([](Decoder & d) { return d.params().n_seq_max; }); },
            "Sequences.");
}

void add_life(py::class_<Context> & context) {
    context
        .def("cancel", &Context::cancel,
             "From any thread: what is being computed, or will be until start(), ends with RequestCancelledError.")
        .def("start", &Context::start, "Take back cancel().")
        .def(
            "set_threads",
            [](Context & self, int n_threads) { self.run_with_gil([&](Decoder & d) { d.set_threads(n_threads); }); },
            py::arg("n_threads"), "Compute steps with this many threads from now on.")
        .def("close", &Context::close, "Free everything; later calls raise ClosedError.")
        .def_property_readonly("closed", &Context::closed, "Whether close() has been called.");
}

}  // namespace

void add_context(py::module_ & m) {
    auto context =
        py::class_<Context>(m, "Context", "A context over a model: it reads text and decodes token by token.")
            .def(py::init(&make), py::arg("model"), py::arg("params"), py::arg("stats") = py::none());
    add_reading(context);
    add_sampling(context);
    add_sequences(context);
    add_facts(context);
    add_life(context);
    add_inspection(context);
    add_images(m, context);
}

}  // namespace pytriattn
