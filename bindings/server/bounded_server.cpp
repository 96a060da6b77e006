#include "bounded_server.h"

#include "slots.h"

#include "controller.h"
#include "decoder_params.h"
#include "errors.h"
#include "key_feedback.h"
#include "kv_memory.h"
#include "kv_state.h"

#include "log.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pytriattn::server {
namespace {

constexpr size_t MAX_WAITING = 4096;  // tasks
const char * const BUDGET_FIELD = "triattention_budget";
const char * const QUESTION_FIELD = "triattention_question";

// One server a process, as upstream's is.
std::optional<BudgetSettings> settings;
std::optional<ggml_type> cache_type_k, cache_type_v;
std::atomic<int32_t> n_threads = 0;  // 0: what the flags say
std::shared_ptr<Slots> slots;
std::mutex slots_mutex;  // others than the thread that computes ask for them
std::exception_ptr error;
std::mutex requests_mutex;
std::map<int, Wishes> wishes_of_task;  // of requests that no slot has taken yet
std::map<int, int> task_of_slot;
bool takes_back_any_draft = false;  // positions can be removed one by one

std::shared_ptr<Slots> current_slots() {
    const std::lock_guard lock(slots_mutex);
    return slots;
}

triattn::DecoderParams decoder_params(const common_params & params) {
    triattn::DecoderParams result;
    result.n_ctx = params.n_ctx > 0 ? params.n_ctx : settings->n_ctx_train;
    result.n_batch = params.n_batch;
    result.n_ubatch = params.n_ubatch;
    result.n_threads = params.cpuparams.n_threads;
    result.n_seq_max = params.n_parallel;
    result.type_k = params.cache_type_k;
    result.type_v = params.cache_type_v;
    result.rope.scaling = params.rope_scaling_type;
    result.rope.freq_base = params.rope_freq_base;
    result.rope.freq_scale = params.rope_freq_scale;
    result.rope.yarn_ext_factor = params.yarn_ext_factor;
    result.rope.yarn_attn_factor = params.yarn_attn_factor;
    result.rope.yarn_beta_fast = params.yarn_beta_fast;
    result.rope.yarn_beta_slow = params.yarn_beta_slow;
    result.rope.yarn_orig_ctx = params.yarn_orig_ctx > 0 ? static_cast<uint32_t>(params.yarn_orig_ctx) : 0;
    result.eviction = settings->eviction;
    return result;
}

void check_params(const common_params & params) {
    if (params.ctx_shift) {
        throw triattn::ContextError("--context-shift and a budget exclude each other: evicting makes room by itself");
    }
    if (params.embedding) {
        throw triattn::ContextError("--embedding reads a text once and generates nothing; start it without a budget");
    }
    for (const common_speculative_type type : params.speculative.types) {
        if (type == COMMON_SPECULATIVE_TYPE_DRAFT_MTP) {
            throw triattn::ContextError(
                "drafting by the model's own heads (MTP) reads the same cache, which a budget changes; use a draft "
                "model (-md), or start without a budget");
        }
    }
}

// A context that has read what the engine has to know of its queries.
common_init_result_ptr make_ready_context(common_params & params, int64_t n_positions) {
    common_init_result_ptr result = common_init_from_params(params);
    if (llama_context * ctx = result->context(); ctx != nullptr) {
        const int64_t n = n_positions > 0 ? n_positions : llama_n_ctx_seq(ctx);
        if (const int32_t status = triattn::feed_back_key_errors(ctx, n); status != 0) {
            throw triattn::DecodeError("llama.cpp could not read a short text when the server started (status " +
                                       std::to_string(status) + "); use --cache-type-k q8_0");
        }
    }
    return result;
}

common_init_result_ptr make_bounded_context(common_params & params) {
    check_params(params);
    const triattn::DecoderParams wanted = decoder_params(params);
    const triattn::CacheSize size = triattn::cache_size(wanted, settings->n_swa);
    params.n_ctx = size.n_cells * params.n_parallel;
    params.n_batch = size.n_batch;
    params.n_ubatch = size.n_ubatch;
    params.kv_unified = false;  // each slot has cells of its own, to be evicted from alone
    params.swa_full = false;
    params.n_cache_reuse = 0;
    common_init_result_ptr result = make_ready_context(params, wanted.n_ctx);
    // from here on it is what the slots may read
    params.n_ctx = static_cast<int32_t>(wanted.n_ctx) * params.n_parallel;
    if (llama_context * ctx = result->context(); ctx != nullptr) {
        triattn::set_positions(ctx, static_cast<uint32_t>(wanted.n_ctx));
        auto made = std::make_shared<Slots>(ctx, settings->eviction, settings->stats, wanted);
        if (!params.mmproj.path.empty()) {
            triattn::check_images(made->view());
        }
        if (settings->eviction.reread) {
            triattn::save_place(ctx, 0, wanted.n_seq_max);  // throws where a second reading could not be taken back
        }
        triattn::set_guard(ctx, made);
        {
            const std::lock_guard lock(slots_mutex);
            slots = std::move(made);
        }
        task_of_slot.clear();
        takes_back_any_draft = false;
    }
    return result;
}

// The budget that a request names. Throws std::invalid_argument.
int32_t budget_in(const common_json & value) {
    const auto & eviction = settings->eviction;
    const int64_t least = triattn::least_budget(eviction.window, eviction.n_sink);
    if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > eviction.budget) {
        throw std::invalid_argument(std::string(BUDGET_FIELD) + " is " + value.dump_safe() +
                                    ", it must be a whole number from " + std::to_string(least) + " to " +
                                    std::to_string(eviction.budget) + ", the budget of this server");
    }
    return static_cast<int32_t>(value.get<int64_t>());
}

}  // namespace

void set_budget(std::optional<BudgetSettings> wanted) { settings = std::move(wanted); }

void set_cache_types(std::optional<ggml_type> type_k, std::optional<ggml_type> type_v) {
    cache_type_k = type_k;
    cache_type_v = type_v;
}

void set_threads(int32_t n) { n_threads = n; }

std::exception_ptr take_error() { return std::exchange(error, nullptr); }

common_init_result_ptr make_context(common_params & params) {
    params.cache_type_k = cache_type_k.value_or(params.cache_type_k);
    params.cache_type_v = cache_type_v.value_or(params.cache_type_v);
    try {
        return settings ? make_bounded_context(params) : make_ready_context(params, 0);
    } catch (...) {
        // an exception would pass threads that must be joined; without a context the server ends by itself
        error = std::current_exception();
        common_params none = params;
        none.model.path = "";
        return common_init_from_params(none, /*model_only*/ true);
    }
}

int32_t process(llama_context * ctx, llama_process_type type, common_batch & batch) {
    try {
        if (const int32_t n = n_threads; n > 0) {
            llama_set_n_threads(ctx, n, n);
        }
        const bool is_bounded = slots && slots->guards(ctx);
        if (is_bounded) {
            slots->prepare_step(batch.tokens);
        }
        const int32_t status = llama_process(ctx, type, batch.get());
        if (is_bounded && status == 0) {
            slots->step_was_made(batch.tokens);
        }
        if (slots) {
            slots->publish();
        }
        return status;
    } catch (const std::exception & failure) {
        LOG_ERR("%s: %s\n", __func__, failure.what());
        return -3;
    }
}

common_context_seq_rm_type seq_rm_type(llama_context * ctx) {
    const common_context_seq_rm_type type = common_context_can_seq_rm(ctx);
    if (!slots || !slots->guards(ctx) || type != COMMON_CONTEXT_SEQ_RM_TYPE_PART) {
        return type;
    }
    takes_back_any_draft = true;
    return COMMON_CONTEXT_SEQ_RM_TYPE_RS;
}

uint32_t n_rs_seq(const llama_context * ctx) {
    return slots && slots->guards(ctx) && takes_back_any_draft ? std::numeric_limits<uint32_t>::max()
                                                               : llama_n_rs_seq(ctx);
}

void draft(common_speculative * spec) {
    for (int32_t slot = 0; slots && slot < slots->n_slots(); ++slot) {
        common_speculative_draft_params & params = common_speculative_get_draft_params(spec, slot);
        const int32_t n = slots->until_eviction(slot) - 1;  // the token drawn last comes before the draft
        params.n_max = std::min(params.n_max, n);
        params.drafting = params.drafting && n > 0;
    }
    common_speculative_draft(spec);
}

common_json note_request(const llama_vocab * vocab, const server_task & task, const common_json & request) {
    const bool names_budget = request.contains(BUDGET_FIELD) && !request.at(BUDGET_FIELD).is_null();
    const bool names_question = request.contains(QUESTION_FIELD) && request.at(QUESTION_FIELD) != "auto";
    if (!settings) {
        if (names_budget || (names_question && !request.at(QUESTION_FIELD).is_null())) {
            throw std::invalid_argument(std::string(names_budget ? BUDGET_FIELD : QUESTION_FIELD) +
                                        " needs a server that was started with --triattention-budget");
        }
        return request;
    }
    Wishes wishes;
    if (names_budget) {
        wishes.budget = budget_in(request.at(BUDGET_FIELD));
    }
    if (settings->eviction.mode == triattn::Mode::fitted) {
        const int32_t budget = wishes.budget.value_or(settings->eviction.budget);
        try {
            wishes.question = names_question ? named_question(request.at(QUESTION_FIELD), task, vocab, budget)
                                             : find_question(request, task, vocab, budget);
        } catch (const std::exception & error) {
            throw std::invalid_argument(std::string(QUESTION_FIELD) + ": " + error.what());
        }
    }
    {
        const std::lock_guard lock(requests_mutex);
        wishes_of_task[task.id] = wishes;
        if (wishes_of_task.size() > MAX_WAITING) {
            wishes_of_task.erase(wishes_of_task.begin());  // of a task that was given up before it began
        }
    }
    if (!settings->protects_prompt) {
        return request;
    }
    triattn::EvictionConfig config = settings->eviction;
    config.budget = wishes.budget.value_or(config.budget);
    const auto n_keys = static_cast<int64_t>(task.tokens.size());  // an image has fewer positions
    try {
        triattn::check_protected_prompt(n_keys, config);
    } catch (const triattn::BudgetError & error) {
        throw std::invalid_argument(error.what());
    }
    if (triattn::leaves_little_to_choose(config, n_keys)) {
        LOG_WRN(
            "a protected prompt of %lld tokens leaves little of a budget of %d to choose: of later text only the newest "
            "keys are kept\n",
            static_cast<long long>(n_keys), config.budget);
    }
    // what has been evicted of an answer cannot be protected, once the answer is a part of a prompt
    common_json result = request;
    result["cache_prompt"] = false;
    return result;
}

void slot_works(int slot_id, const server_task & task) {
    if (!slots) {
        return;
    }
    if (const auto found = task_of_slot.find(slot_id); found != task_of_slot.end() && found->second == task.id) {
        return;
    }
    task_of_slot[slot_id] = task.id;
    if (task.is_child()) {
        return;  // it goes on from a copy of its parent's slot
    }
    Wishes wishes;
    {
        const std::lock_guard lock(requests_mutex);
        if (const auto node = wishes_of_task.extract(task.id); !node.empty()) {
            wishes = node.mapped();
        }
    }
    try {
        slots->start(slot_id, task, wishes, settings->protects_prompt);
    } catch (const std::exception & failure) {
        LOG_ERR("the question of a request could not be read, so it does not choose what is kept: %s\n",
                failure.what());
    }
}

common_json describe() {
    if (!settings) {
        return nullptr;
    }
    const auto & eviction = settings->eviction;
    return common_json::object({
        {"mode", triattn::mode_name(eviction.mode)},
        {"budget", eviction.budget},
        {"window", eviction.window},
        {"interval", eviction.interval},
        {"n_sink", eviction.n_sink},
        {"protect_prompt", settings->protects_prompt},
        {"reread", eviction.reread},
        {"stats_path", settings->stats_path},
    });
}

common_json describe_slot(int slot_id) {
    const std::shared_ptr<Slots> of = current_slots();
    const std::vector<SlotState> states = of ? of->states() : std::vector<SlotState>{};
    if (slot_id < 0 || static_cast<size_t>(slot_id) >= states.size()) {
        return nullptr;
    }
    const SlotState & state = states[static_cast<size_t>(slot_id)];
    const Question & asked = state.question;
    return common_json::object({
        {"budget", state.budget},
        {"question", asked.is_there() ? common_json::array({asked.begin, asked.end}) : common_json(nullptr)},
        {"resident_keys", state.n_keys},
        {"evictions", state.counters.n_evictions},
        {"evicted_tokens", state.counters.n_tokens_evicted},
        {"saved_bytes", state.counters.n_tokens_evicted * static_cast<int64_t>(of->bytes_per_key())},
        {"seconds", state.counters.scoring_s + state.counters.selection_s + state.counters.compaction_s},
    });
}

std::string metrics() {
    const std::shared_ptr<Slots> of = current_slots();
    if (!of) {
        return "";
    }
    std::string text;
    const auto add = [&](const char * name, const char * kind, const char * help, const std::string & lines) {
        text += "# HELP llamacpp:" + std::string(name) + " " + help + "\n# TYPE llamacpp:" + name + " " + kind + "\n" +
                lines;
    };
    const Totals totals = of->totals();
    add("triattention_evictions_total", "counter", "Number of times that a slot's cache was pruned.",
        "llamacpp:triattention_evictions_total " + std::to_string(totals.n_evictions) + "\n");
    add("triattention_evicted_tokens_total", "counter", "Number of keys that every head has lost.",
        "llamacpp:triattention_evicted_tokens_total " + std::to_string(totals.n_tokens_evicted) + "\n");
    add("triattention_seconds_total", "counter", "Time spent evicting.",
        "llamacpp:triattention_seconds_total " + std::to_string(totals.seconds) + "\n");
    std::string keys;
    const std::vector<SlotState> states = of->states();
    for (size_t i = 0; i < states.size(); ++i) {
        keys += "llamacpp:triattention_resident_keys{slot=\"" + std::to_string(i) + "\"} " +
                std::to_string(states[i].n_keys) + "\n";
    }
    add("triattention_resident_keys", "gauge", "Keys per head in a slot's cache.", keys);
    return text;
}

}  // namespace pytriattn::server
