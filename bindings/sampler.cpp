#include "sampler.h"

#include "grammar.h"
#include "json_text.h"

#include "common.h"
#include "json-schema-to-grammar.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace pytriattn {
namespace {

// Adds -infinity to every token that ends a text.
void forbid_end(const Model & model, common_params_sampling & settings) {
    for (llama_token token = 0; token < llama_vocab_n_tokens(model.vocab()); ++token) {
        if (llama_vocab_is_eog(model.vocab(), token)) {
            settings.logit_bias.push_back({token, -INFINITY});
        }
    }
}

// A trigger word that is one of the template's own tokens is recognised as that token.
void resolve_triggers(const Model & model, common_params_sampling & settings) {
    for (common_grammar_trigger & trigger : settings.grammar_triggers) {
        if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
            continue;
        }
        const std::vector<llama_token> tokens =
            common_tokenize(model.vocab(), trigger.value, /*add_special*/ false, /*parse_special*/ true);
        if (tokens.size() == 1 && settings.preserved_tokens.count(tokens[0]) > 0) {
            trigger.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
            trigger.token = tokens[0];
        }
    }
}

std::unique_ptr<Sampler> make(std::shared_ptr<Model> model, common_params_sampling settings) {
    settings.no_perf = true;
    const int32_t n_vocab = llama_vocab_n_tokens(model->vocab());
    for (const llama_logit_bias & bias : settings.logit_bias) {
        if (bias.token < 0 || bias.token >= n_vocab) {
            throw triattn::InvalidTokenError("logit_bias: token " + std::to_string(bias.token) +
                                             " is not in the vocabulary of " + std::to_string(n_vocab));
        }
    }
    if (settings.ignore_eos) {
        forbid_end(*model, settings);
    }
    resolve_triggers(*model, settings);
    if (!settings.grammar.grammar.empty()) {
        check_grammar(model->vocab(), settings.grammar.grammar);
    }
    return std::make_unique<Sampler>(std::move(model), std::move(settings));
}

void set_grammar(common_params_sampling & settings, const std::string & kind, const std::string & text) {
    const std::map<std::string, common_grammar_type> kinds = {{"user", COMMON_GRAMMAR_TYPE_USER},
                                                              {"output_format", COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT},
                                                              {"tool_calls", COMMON_GRAMMAR_TYPE_TOOL_CALLS}};
    settings.grammar = {kinds.at(kind), text};
}

// Sampler names in llama.cpp's own spelling, in the order in which they apply.
void set_order(common_params_sampling & settings, const std::vector<std::string> & names) {
    settings.samplers = common_sampler_types_from_names(names);
    for (const std::string & name : names) {
        if (common_sampler_types_from_names({name}).empty()) {
            throw py::value_error("samplers has the name '" + name +
                                  "', which llama.cpp does not know; use names such as 'top_k' and 'temperature'");
        }
    }
}

std::string grammar_of_schema(const std::string & schema) {
    try {
        return json_schema_to_grammar(parse_json(schema));
    } catch (const std::exception & error) {
        throw GrammarError(std::string("this JSON schema cannot be turned into a grammar: ") + error.what());
    }
}

}  // namespace

Sampler::Sampler(std::shared_ptr<Model> model, common_params_sampling settings)
    : model_(std::move(model)), has_grammar_(!settings.grammar.empty()) {
    recent_errors();
    try {
        sampler_.reset(common_sampler_init(model_->model.get(), settings));
    } catch (const std::exception & error) {
        if (!settings.grammar.empty()) {
            throw GrammarError(std::string("the grammar cannot be used: ") + error.what() + recent_errors());
        }
        throw triattn::ContextError(std::string("llama.cpp could not make a sampler: ") + error.what());
    }
    if (!sampler_ && has_grammar_) {
        throw GrammarError("the grammar cannot be used" + recent_errors());
    }
    if (!sampler_) {
        throw triattn::ContextError("llama.cpp could not make a sampler");
    }
}

llama_token Sampler::sample(llama_context * ctx, int row) {
    std::vector<float> original;
    float * logits = nullptr;
    if (processor_) {
        logits = llama_get_logits_ith(ctx, row);
        if (logits == nullptr) {
            throw triattn::DecodeError("llama.cpp gave no logits");
        }
        original.assign(logits, logits + llama_vocab_n_tokens(model_->vocab()));
        with_gil([&] { process(original, logits); });
    }
    const llama_token token = common_sampler_sample(sampler_.get(), ctx, row);
    if (processor_) {
        std::copy(original.begin(), original.end(), logits);  // log-probabilities are those of the model
        tokens_.push_back(token);
    }
    check_drawn();
    accept_drawn(token);
    return token;
}

void Sampler::check_drawn() const {
    // with no token left llama.cpp's samplers take any
    const llama_token_data_array & candidates = *common_sampler_get_candidates(sampler_.get(), /*do_sort*/ false);
    const bool is_one = candidates.selected >= 0 && static_cast<size_t>(candidates.selected) < candidates.size;
    const float logit = is_one ? candidates.data[candidates.selected].logit : -INFINITY;
    if (std::isnan(logit)) {
        throw triattn::DecodeError("the next token cannot be drawn: the model's logits are no numbers (NaN)");
    }
    if (logit == -INFINITY) {
        if (has_grammar_) {
            throw GrammarError(
                "no token can be drawn: none that the grammar admits here is left by ignore_eos, logit_bias and "
                "logits_processor; loosen one of them");
        }
        throw py::value_error(
            "no token can be drawn: ignore_eos, logit_bias or a logits_processor forbids all that are left; allow one");
    }
}

void Sampler::accept_drawn(llama_token token) {
    try {
        common_sampler_accept(sampler_.get(), token, /*is_generated*/ true);
    } catch (const std::exception & error) {
        throw GrammarError(std::string("the grammar cannot go on after the token that was drawn: ") + error.what());
    }
}

void Sampler::process(const std::vector<float> & logits, float * out) const {
    const auto n = static_cast<py::ssize_t>(logits.size());
    const py::object answer =
        call_python(processor_, to_array(tokens_, {static_cast<py::ssize_t>(tokens_.size())}), to_array(logits, {n}));
    const auto values = array<float>::ensure(answer);
    if (!values || values.ndim() != 1 || values.size() != n) {
        throw py::value_error("a logits_processor returned " +
                              (values ? "an array of shape " + shape_of(values) : "an object that is not numbers") +
                              ", it must return logits [" + std::to_string(n) +
                              "], one for each token of the vocabulary");
    }
    const auto * wrong = std::find_if(values.data(), values.data() + n, [](float value) { return std::isnan(value); });
    if (wrong != values.data() + n) {
        throw py::value_error("a logits_processor returned NaN for token " + std::to_string(wrong - values.data()) +
                              "; it must return numbers, or -inf to forbid a token");
    }
    std::copy(values.data(), values.data() + n, out);
}

void Sampler::set_logits_processor(LogitsProcessor processor, std::vector<llama_token> prompt) {
    processor_ = std::move(processor);
    tokens_ = std::move(prompt);
}

void add_sampler(py::module_ & m) {
    m.attr("RANDOM_SEED") = LLAMA_DEFAULT_SEED;
    using Trigger = common_grammar_trigger;
    py::class_<Trigger>(m, "GrammarTrigger", "What in an answer makes a lazy grammar begin.")
        .def_property_readonly(
            "kind", [](const Trigger & t) { return static_cast<int>(t.type); }, "llama.cpp's number for the kind.")
        .def_readonly("value", &Trigger::value, "The word or pattern.")
        .def_readonly("token", &Trigger::token, "The token, where the kind is one; -1 elsewhere.");
    using Settings = common_params_sampling;
    py::class_<Settings>(m, "SamplingSettings")
        .def(py::init<>())
        .def_readwrite("seed", &Settings::seed)
        .def_readwrite("top_k", &Settings::top_k)
        .def_readwrite("top_p", &Settings::top_p)
        .def_readwrite("min_p", &Settings::min_p)
        .def_readwrite("typical_p", &Settings::typ_p)
        .def_readwrite("xtc_probability", &Settings::xtc_probability)
        .def_readwrite("xtc_threshold", &Settings::xtc_threshold)
        .def_readwrite("top_n_sigma", &Settings::top_n_sigma)
        .def_readwrite("temperature", &Settings::temp)
        .def_readwrite("dynatemp_range", &Settings::dynatemp_range)
        .def_readwrite("dynatemp_exponent", &Settings::dynatemp_exponent)
        .def_readwrite("penalty_last_n", &Settings::penalty_last_n)
        .def_readwrite("repeat_penalty", &Settings::penalty_repeat)
        .def_readwrite("frequency_penalty", &Settings::penalty_freq)
        .def_readwrite("presence_penalty", &Settings::penalty_present)
        .def_readwrite("dry_multiplier", &Settings::dry_multiplier)
        .def_readwrite("dry_base", &Settings::dry_base)
        .def_readwrite("dry_allowed_length", &Settings::dry_allowed_length)
        .def_readwrite("dry_penalty_last_n", &Settings::dry_penalty_last_n)
        .def_readwrite("dry_sequence_breakers", &Settings::dry_sequence_breakers)
        .def_readwrite("mirostat_mode", &Settings::mirostat)
        .def_readwrite("mirostat_tau", &Settings::mirostat_tau)
        .def_readwrite("mirostat_eta", &Settings::mirostat_eta)
        .def_readwrite("ignore_eos", &Settings::ignore_eos)
        .def_readwrite("generation_prompt", &Settings::generation_prompt)
        .def_readwrite("grammar_lazy", &Settings::grammar_lazy)
        .def("set_grammar", &set_grammar, py::arg("kind"), py::arg("text"))
        .def("set_order", &set_order, py::arg("names"))
        .def(
            "add_logit_bias",
            [](Settings & s, llama_token token, float bias) { s.logit_bias.push_back({token, bias}); },
            py::arg("token"), py::arg("bias"))
        .def(
            "add_trigger", [](Settings & s, const Trigger & trigger) { s.grammar_triggers.push_back(trigger); },
            py::arg("trigger"))
        .def(
            "preserve_token", [](Settings & s, llama_token token) { s.preserved_tokens.insert(token); },
            py::arg("token"));
    py::class_<Sampler>(m, "Sampler", collected<Sampler>())
        .def(py::init(&make), py::arg("model"), py::arg("settings"))
        .def("accept", &Sampler::accept, py::arg("token"))
        .def("set_logits_processor", &Sampler::set_logits_processor, py::arg("processor"), py::arg("prompt"))
        .def_property_readonly("seed", &Sampler::seed);
    m.def("grammar_of_schema", &grammar_of_schema, py::arg("schema"));
}

}  // namespace pytriattn
