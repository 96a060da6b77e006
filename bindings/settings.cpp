// What a context is made with, as Python classes.
#include "chooser.h"
#include "repr.h"

#include "decoder_params.h"
#include "eviction_config.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pytriattn {
namespace {

using triattn::CacheSize;
using triattn::DecoderParams;
using triattn::EvictionConfig;
using triattn::FlashAttention;

FlashAttention flash_attention_from_name(const std::string & name) {
    if (name == "auto") return FlashAttention::automatic;
    if (name == "on") return FlashAttention::on;
    if (name == "off") return FlashAttention::off;
    throw triattn::ContextError("flash_attn is '" + name + "', it must be 'auto', 'on' or 'off'");
}

const char * flash_attention_name(FlashAttention setting) {
    switch (setting) {
        case FlashAttention::on:  return "on";
        case FlashAttention::off: return "off";
        default:                  return "auto";
    }
}

EvictionConfig make_eviction_config(const std::string & mode, int budget, int interval, int window, int n_sink,
                                    uint64_t seed, const std::vector<int32_t> & offsets, bool use_trig, bool use_norm,
                                    bool use_unrotated, bool reread, const triattn::KeyScoreOptions & key_score,
                                    const std::optional<PythonChooser::Callable> & chooser) {
    EvictionConfig config;
    config.mode = triattn::mode_from_name(mode);
    config.budget = budget;
    config.interval = interval;
    config.window = window;
    config.n_sink = n_sink;
    config.seed = seed;
    config.score = score_options(offsets, use_trig, use_norm, use_unrotated);
    config.reread = reread;
    config.key_score = key_score;
    if (chooser) {
        config.chooser = PythonChooser(*chooser);
    }
    triattn::check(config);
    return config;
}

// The callable that a config was made with; None without one.
std::optional<PythonChooser::Callable> chooser_of(const EvictionConfig & config) {
    const auto * chooser = config.chooser.target<PythonChooser>();
    return chooser != nullptr ? std::optional(py::reinterpret_borrow<PythonChooser::Callable>(chooser->callable()))
                              : std::nullopt;
}

void add_key_score_options(py::module_ & m) {
    using triattn::KeyScoreOptions;
    auto options =
        py::class_<KeyScoreOptions>(m, "KeyScoreOptions", "The parts of the score of mode 'fitted'.")
            .def(py::init([](bool use_fit, bool use_received, double decay, double received_weight,
                             double question_weight, double question_foreseen, double standing_weight,
                             double retrieval_share, int least_retrieval_heads, double other_heads, double value_power,
                             double received_value_power, int stride, int spread_back, int spread_forward,
                             int question_forward, std::vector<std::string> standing_questions) {
                     KeyScoreOptions result{use_fit,
                                            use_received,
                                            decay,
                                            received_weight,
                                            question_weight,
                                            question_foreseen,
                                            standing_weight,
                                            retrieval_share,
                                            least_retrieval_heads,
                                            other_heads,
                                            value_power,
                                            received_value_power,
                                            stride,
                                            spread_back,
                                            spread_forward,
                                            question_forward,
                                            std::move(standing_questions)};
                     triattn::check(result);
                     return result;
                 }),
                 py::kw_only(), py::arg("use_fit") = true, py::arg("use_received") = true,
                 py::arg("decay") = KeyScoreOptions().decay,
                 py::arg("received_weight") = KeyScoreOptions().received_weight,
                 py::arg("question_weight") = KeyScoreOptions().question_weight,
                 py::arg("question_foreseen") = KeyScoreOptions().question_foreseen,
                 py::arg("standing_weight") = KeyScoreOptions().standing_weight,
                 py::arg("retrieval_share") = KeyScoreOptions().retrieval_share,
                 py::arg("least_retrieval_heads") = KeyScoreOptions().least_retrieval_heads,
                 py::arg("other_heads") = KeyScoreOptions().other_heads,
                 py::arg("value_power") = KeyScoreOptions().value_power,
                 py::arg("received_value_power") = KeyScoreOptions().received_value_power,
                 py::arg("stride") = KeyScoreOptions().stride, py::arg("spread_back") = KeyScoreOptions().spread_back,
                 py::arg("spread_forward") = KeyScoreOptions().spread_forward,
                 py::arg("question_forward") = KeyScoreOptions().question_forward,
                 py::arg_v("standing_questions", KeyScoreOptions().standing_questions,
                           "KeyScoreOptions().standing_questions"))
            .def_readonly("use_fit", &KeyScoreOptions::use_fit, "Whether expected attention counts.")
            .def_readonly("use_received", &KeyScoreOptions::use_received, "Whether received attention counts.")
            .def_readonly("decay", &KeyScoreOptions::decay, "Factor on received attention, for every 128 tokens.")
            .def_readonly("received_weight", &KeyScoreOptions::received_weight, "Factor on received attention.")
            .def_readonly("question_weight", &KeyScoreOptions::question_weight,
                          "Factor on the attention of the question.")
            .def_readonly("question_foreseen", &KeyScoreOptions::question_foreseen,
                          "In foreseen attention the question counts as so many times the standing ones.")
            .def_readonly("standing_weight", &KeyScoreOptions::standing_weight,
                          "Factor on foreseen attention; 0: standing questions are not read.")
            .def_readonly(
                "retrieval_share", &KeyScoreOptions::retrieval_share,
                "Share of the KV heads, the retrieval heads, whose attention to standing questions is foreseen.")
            .def_readonly("least_retrieval_heads", &KeyScoreOptions::least_retrieval_heads,
                          "How many heads these are at least, where there are so many.")
            .def_readonly("other_heads", &KeyScoreOptions::other_heads,
                          "Factor on foreseen attention for the keys of all other heads.")
            .def_readonly("value_power", &KeyScoreOptions::value_power,
                          "Power of the norm of a key's value that its attention is multiplied by.")
            .def_readonly("received_value_power", &KeyScoreOptions::received_value_power,
                          "The same for received attention.")
            .def_readonly("stride", &KeyScoreOptions::stride,
                          "The queries of one token in so many give received attention.")
            .def_readonly("spread_back", &KeyScoreOptions::spread_back,
                          "So many keys before a key get its attention of a question, too.")
            .def_readonly("spread_forward", &KeyScoreOptions::spread_forward,
                          "The same for keys after it and standing questions.")
            .def_readonly("question_forward", &KeyScoreOptions::question_forward,
                          "The same for keys after it and the question.")
            .def_readonly("standing_questions", &KeyScoreOptions::standing_questions,
                          "Questions that might be asked of any text, each up to where its answer would begin.");
    add_repr(options, {"use_fit", "use_received", "decay", "received_weight", "question_weight", "question_foreseen",
                       "standing_weight", "retrieval_share", "least_retrieval_heads", "other_heads", "value_power",
                       "received_value_power", "stride", "spread_back", "spread_forward", "question_forward",
                       "standing_questions"});
}

void add_eviction_config(py::module_ & m) {
    auto config =
        py::class_<EvictionConfig>(
            m, "EvictionConfig",
            "What is evicted, and when. Raises BudgetError for values that contradict each other. Mode 'custom' asks "
            "`chooser(view)`, which is given an EvictionView and returns for each of its layers a bool array "
            "[n_head_kv, n_keys]: the keys that stay. Every head must keep view.n_keep of them, all protected ones "
            "included; anything else is a BudgetError before a key is moved. An error of the chooser comes out of the "
            "call that evicts. As after every error of decoding the context has then been cleared and can be used "
            "again; Context.evict leaves it as it was.")
            .def(py::init(&make_eviction_config), py::kw_only(), py::arg("mode"), py::arg("budget"),
                 py::arg("interval") = 128, py::arg("window") = 64, py::arg("n_sink") = 4, py::arg("seed") = 0,
                 py::arg_v("offsets", triattn::ScoreOptions().offsets, "DEFAULT_OFFSETS"), py::arg("use_trig") = true,
                 py::arg("use_norm") = true, py::arg("use_unrotated") = true, py::arg("reread") = false,
                 py::arg_v("key_score", triattn::KeyScoreOptions(), "KeyScoreOptions()"),
                 py::arg("chooser") = py::none())
            .def_property_readonly(
                "mode", [](const EvictionConfig & self) { return triattn::mode_name(self.mode); },
                "One of MODES, or 'custom'.")
            .def_readonly("budget", &EvictionConfig::budget, "Keys kept per layer and KV head.")
            .def_readonly("interval", &EvictionConfig::interval, "Tokens between evictions.")
            .def_readonly("window", &EvictionConfig::window, "Newest keys, never evicted.")
            .def_readonly("n_sink", &EvictionConfig::n_sink, "First keys, never evicted.")
            .def_readonly("seed", &EvictionConfig::seed, "The seed of mode 'random'.")
            .def_property_readonly(
                "offsets", [](const EvictionConfig & self) { return self.score.offsets; },
                "Distances of the future queries that a score is the mean over, in positions.")
            .def_property_readonly(
                "use_trig", [](const EvictionConfig & self) { return self.score.use_trig; },
                "Whether the score has its part from the queries' centres.")
            .def_property_readonly(
                "use_norm", [](const EvictionConfig & self) { return self.score.use_norm; },
                "Whether the score has its part from the queries' lengths.")
            .def_property_readonly(
                "use_unrotated", [](const EvictionConfig & self) { return self.score.use_unrotated; },
                "Whether bands that RoPE does not rotate count.")
            .def_readonly("reread", &EvictionConfig::reread,
                          "Of mode 'fitted': whether new tokens are read once more before an eviction.")
            .def_readonly("key_score", &EvictionConfig::key_score, "The parts of the score of mode 'fitted'.")
            .def_property_readonly("chooser", &chooser_of, "The callable of mode 'custom'.")
            .def_property_readonly(
                "moves_rows", [](const EvictionConfig & self) { return triattn::moves_rows(self.mode); },
                "Whether heads may keep different keys, so that rows move.")
            .def_property_readonly(
                "needs_scores", [](const EvictionConfig & self) { return triattn::needs_scores(self.mode); },
                "Whether keys are scored, for which there have to be statistics.");
    add_repr(config, {"mode", "budget", "interval", "window", "n_sink", "seed"});
}

DecoderParams make_decoder_params(int64_t n_ctx, int n_batch, int n_ubatch, int n_threads, int n_seq_max,
                                  bool kv_unified, const std::string & type_k, const std::string & type_v,
                                  const std::string & flash_attn, const triattn::RopeOverrides & rope,
                                  const std::optional<EvictionConfig> & eviction, bool full_prefill, int n_draft) {
    DecoderParams params;
    params.n_ctx = n_ctx;
    params.n_batch = n_batch;
    params.n_ubatch = n_ubatch;
    params.n_threads = n_threads;
    params.n_seq_max = n_seq_max;
    params.kv_unified = kv_unified;
    params.type_k = triattn::cache_type_from_name(type_k);
    params.type_v = triattn::cache_type_from_name(type_v);
    params.flash_attn = flash_attention_from_name(flash_attn);
    params.rope = rope;
    params.eviction = eviction;
    params.full_prefill = full_prefill;
    params.n_draft = n_draft;
    triattn::check(params);
    return params;
}

void add_decoder_params(py::module_ & m) {
    auto params =
        py::class_<DecoderParams>(m, "DecoderParams",
                                  "What a context is made with. Raises ContextError for values that make no sense.")
            .def(py::init(&make_decoder_params), py::kw_only(), py::arg("n_ctx"), py::arg("n_batch") = 2048,
                 py::arg("n_ubatch") = 512, py::arg("n_threads") = 1, py::arg("n_seq_max") = 1,
                 py::arg("kv_unified") = false, py::arg("type_k") = "f16", py::arg("type_v") = "f16",
                 py::arg("flash_attn") = "auto", py::arg_v("rope", triattn::RopeOverrides(), "RopeOverrides()"),
                 py::arg("eviction") = py::none(), py::arg("full_prefill") = false, py::arg("n_draft") = 0)
            .def_readonly("n_ctx", &DecoderParams::n_ctx, "Positions of a sequence.")
            .def_readonly("n_batch", &DecoderParams::n_batch, "The largest step, in tokens.")
            .def_readonly("n_ubatch", &DecoderParams::n_ubatch, "Tokens computed at once.")
            .def_readonly("n_threads", &DecoderParams::n_threads, "Threads of the CPU.")
            .def_readonly("n_seq_max", &DecoderParams::n_seq_max, "Sequences.")
            .def_readonly("kv_unified", &DecoderParams::kv_unified, "Whether sequences share one pool of cells.")
            .def_property_readonly(
                "type_k", [](const DecoderParams & self) { return std::string(ggml_type_name(self.type_k)); },
                "Type of cached keys, one of CACHE_TYPES.")
            .def_property_readonly(
                "type_v", [](const DecoderParams & self) { return std::string(ggml_type_name(self.type_v)); },
                "Type of cached values, one of CACHE_TYPES.")
            .def_property_readonly(
                "flash_attn", [](const DecoderParams & self) { return flash_attention_name(self.flash_attn); },
                "'auto', 'on' or 'off'.")
            .def_readonly("rope", &DecoderParams::rope, "RoPE settings in place of the model's own.")
            .def_readonly("eviction", &DecoderParams::eviction, "What is evicted; None: nothing.")
            .def_readonly("full_prefill", &DecoderParams::full_prefill,
                          "Whether a prompt is read in full and then pruned once, not while it is read.");
    add_repr(params, {"n_ctx", "n_batch", "n_ubatch", "n_threads", "n_seq_max", "kv_unified", "type_k", "type_v",
                      "flash_attn", "eviction", "full_prefill"});
}

void add_cache_size(py::module_ & m) {
    auto size =
        py::class_<CacheSize>(m, "CacheSize", "Cells of a sequence's caches, and the steps that fit them.")
            .def_readonly("n_cells", &CacheSize::n_cells, "Cells of layers with full attention.")
            .def_readonly("n_cells_sliding", &CacheSize::n_cells_sliding,
                          "Cells of layers with a sliding window; 0 without one.")
            .def_readonly("chunk", &CacheSize::chunk, "Tokens of a prompt in one step.")
            .def_readonly("n_reread", &CacheSize::n_reread, "Of n_cells, those that only a second reading takes.")
            .def_readonly("n_batch", &CacheSize::n_batch, "The largest step of any kind, in tokens.")
            .def_readonly("n_ubatch", &CacheSize::n_ubatch, "Tokens computed at once.");
    add_repr(size, {"n_cells", "n_cells_sliding", "chunk", "n_batch", "n_ubatch"});
}

}  // namespace

void add_settings(py::module_ & m) {
    add_key_score_options(m);
    add_eviction_config(m);
    add_decoder_params(m);
    add_cache_size(m);
}

}  // namespace pytriattn
