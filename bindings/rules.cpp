// The engine's rules that need no model: what a name means, what fits what, how large a cache becomes.
#include "bindings.h"

#include "decoder_params.h"
#include "eviction_config.h"
#include "kv_state.h"
#include "mode.h"
#include "question_reader.h"

namespace pytriattn {
namespace {

using Names = py::typing::Tuple<py::str, py::ellipsis>;

Names names_of(const std::vector<ggml_type> & types, bool quantised_only) {
    std::vector<std::string> names;
    for (ggml_type type : types) {
        if (!quantised_only || ggml_is_quantized(type)) {
            names.emplace_back(ggml_type_name(type));
        }
    }
    return py::tuple(py::cast(names));
}

void add_mode_rules(py::module_ & m) {
    m.attr_with_type_hint<Names>("MODES") = Names(py::tuple(py::cast(triattn::mode_names())));
    m.def(
        "moves_rows", [](const std::string & mode) { return triattn::moves_rows(triattn::mode_from_name(mode)); },
        py::arg("mode"),
        "Whether heads may keep different keys under a mode, so that rows move. Raises BudgetError for an "
        "unknown one.");
    m.def(
        "needs_scores", [](const std::string & mode) { return triattn::needs_scores(triattn::mode_from_name(mode)); },
        py::arg("mode"),
        "Whether a mode scores keys, for which there have to be statistics. Raises BudgetError for an unknown one.");
    m.def(
        "check_mode",
        [](const std::string & mode, const std::vector<int32_t> & n_head_kv, bool has_alibi) {
            triattn::check_mode(triattn::mode_from_name(mode), n_head_kv, has_alibi);
        },
        py::arg("mode"), py::arg("n_head_kv"), py::arg("has_alibi"),
        "Check that a mode can evict from a model. `n_head_kv`: KV heads of each layer with full attention; "
        "`has_alibi`: its attention is biased by distance. Raises UnsupportedModelError, BudgetError.");
}

void add_budget_rules(py::module_ & m) {
    m.def("least_budget", &triattn::least_budget, py::arg("window"), py::arg("n_sink"),
          "The least budget that holds the sink, the window and one key more.");
    m.def("check_protected_prompt", &triattn::check_protected_prompt, py::arg("n_protected"), py::arg("eviction"),
          "Check that a prompt of which nothing may be evicted leaves room for the window. Raises BudgetError.");
    m.def(
        "leaves_little_to_choose",
        [](const std::string & mode, int32_t budget, int32_t window, int32_t n_sink, int64_t n_protected) {
            triattn::EvictionConfig config;
            config.mode = triattn::mode_from_name(mode);
            config.budget = budget;
            config.window = window;
            config.n_sink = n_sink;
            return triattn::leaves_little_to_choose(config, n_protected);
        },
        py::arg("mode"), py::arg("budget"), py::arg("window"), py::arg("n_sink"), py::arg("n_protected"),
        "Whether less than a tenth of the budget can be chosen, since sinks, window and a protected prompt are always kept. "
        "Never in mode 'recent'.");
    m.def("check_question_length", &triattn::check_question_length, py::arg("n_tokens"), py::arg("budget"),
          "Check that so many tokens can be a question. Raises InvalidTokenError, BudgetError.");
}

void add_cache_rules(py::module_ & m) {
    m.def(
        "check_second_reading", &triattn::check_second_reading, py::arg("has_windows_or_states"), py::arg("n_seq_max"),
        "Check that a second reading can be taken back: that no layer has a sliding window or a recurrent state, or that "
        "there is one sequence. Raises UnsupportedModelError.");
    m.attr_with_type_hint<Names>("CACHE_TYPES") = names_of(triattn::cache_types(), false);
    m.attr_with_type_hint<Names>("QUANTISED_TYPES") = names_of(triattn::cache_types(), true);
    m.def("cache_size", &triattn::cache_size, py::arg("params"), py::arg("n_swa"),
          "What a sequence's caches need. `n_swa`: the model's sliding window in tokens, 0 if it has none. Raises "
          "ContextError if the cells cannot be counted.");
    m.def("check_learned_positions", &triattn::check_learned_positions, py::arg("n_ctx"), py::arg("n_ctx_train"),
          py::arg("has_learned_positions"),
          "Check that `n_ctx` positions are no more than a table of learned ones has. Raises ContextError.");
}

}  // namespace

void add_rules(py::module_ & m) {
    add_mode_rules(m);
    add_budget_rules(m);
    add_cache_rules(m);
}

}  // namespace pytriattn
