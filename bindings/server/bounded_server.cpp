#include "bounded_server.h"

#include "attention_probe.h"
#include "controller.h"
#include "decoder_params.h"
#include "errors.h"
#include "kv_memory.h"
#include "question_reader.h"

#include "log.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pytriattn::server {
namespace {

constexpr size_t QUESTION_TOKENS = 64;  // of a prompt that is no chat; as in generation/question.py
constexpr size_t MAX_WAITING = 4096;    // tasks
const char * const BUDGET_FIELD = "triattention_budget";

// What is known of a slot; other threads ask for it while the server computes.
struct SlotState {
    int32_t budget = 0;
    uint32_t n_keys = 0;
    triattn::EvictionCounters counters;
};

struct Totals {
    int64_t n_evictions = 0, n_tokens_evicted = 0;
    double seconds = 0;
};

// The last tokens of a prompt that choose what is kept of the rest: of the last message of the user, or of the whole.
std::vector<llama_token> question_of(const server_task & task) {
    const size_t n = task.tokens.size();
    const int32_t user = task.params.message_spans.last_user_message_pos();
    const size_t most = user >= 0 ? static_cast<size_t>(triattn::QuestionReader::MAX_TOKENS) : QUESTION_TOKENS;
    size_t begin = n - std::min(n, most);
    begin = user >= 0 ? std::max(begin, std::min(static_cast<size_t>(user), n)) : begin;
    std::vector<llama_token> question;
    for (size_t i = begin; i < n; ++i) {
        question.push_back(task.tokens[i]);
        if (task.tokens[i] == LLAMA_TOKEN_NULL) {
            question.clear();  // behind the last image
        }
    }
    return question;
}

// The controller of the server's context.
class Slots : public triattn::Controller {
public:
    Slots(llama_context * ctx, const BudgetSettings & settings, const triattn::DecoderParams & params)
        : Controller(ctx, settings.eviction, settings.stats, params.n_threads),
          ctx_(ctx),
          params_(params),
          states_(static_cast<size_t>(params.n_seq_max)) {
        evict_by_itself();
        read_standing_questions_with([this]() -> triattn::QuestionReader & { return reader(); });
        for (SlotState & state : states_) {
            state.budget = config().budget;
        }
    }

    void context_ends() override {
        Controller::context_ends();
        reader_.reset();  // before the model goes
        ctx_ = nullptr;
    }

    bool guards(const llama_context * ctx) const { return ctx == ctx_; }

    int32_t n_slots() const { return params_.n_seq_max; }

    // A slot begins a task.
    void start(int32_t slot, const server_task & task, std::optional<int32_t> budget) {
        Work & work = works_[slot];
        work = {budget.value_or(config().budget), {}, 0, false};
        if (!takes_questions()) {
            return;
        }
        const std::vector<llama_token> question = question_of(task);
        if (question.empty()) {
            return;
        }
        work.question = reader().read(question);
        work.further = task.tokens.pos_next() - static_cast<int32_t>(question.size()) - reader().n_before();
    }

    // Only now: upstream may clear a slot that has begun a task.
    void before_step(const std::vector<triattn::StepToken> & tokens) override {
        for (const triattn::StepToken & token : tokens) {
            const auto found = works_.find(token.seq);
            if (found == works_.end() || std::exchange(found->second.is_set, true)) {
                continue;
            }
            Controller::set_budget(token.seq, found->second.budget);
            if (takes_questions()) {
                set_question(token.seq, found->second.question, found->second.further);
            }
        }
        Controller::before_step(tokens);
    }
    void was_removed(int32_t seq, int32_t begin, int32_t end) override {
        Controller::was_removed(seq, begin, end);
        if (const auto found = works_.find(seq); begin == 0 && found != works_.end()) {
            found->second.is_set = false;
        }
        publish();
    }
    void was_copied(int32_t from, int32_t to) override {
        Controller::was_copied(from, to);
        works_[to] = works_[from];  // it answers the same prompt
        publish();
    }

    // After every change.
    void publish() {
        const std::lock_guard lock(mutex_);
        for (size_t i = 0; i < states_.size(); ++i) {
            const auto slot = static_cast<int32_t>(i);
            states_[i] = {budget(slot), view().n_used(slot), counters(slot)};
        }
        const triattn::EvictionCounters & all = Controller::counters();
        totals_ = {all.n_evictions, all.n_tokens_evicted, all.scoring_s + all.selection_s + all.compaction_s};
    }

    std::vector<SlotState> states() const {
        const std::lock_guard lock(mutex_);
        return states_;
    }
    Totals totals() const {
        const std::lock_guard lock(mutex_);
        return totals_;
    }

private:
    struct Work {
        int32_t budget = 0;
        triattn::LayerQueries question;
        int32_t further = 0;  // see Controller::set_question
        bool is_set = false;
    };

    triattn::QuestionReader & reader() {
        if (!reader_) {
            reader_ =
                std::make_unique<triattn::QuestionReader>(const_cast<llama_model *>(llama_get_model(ctx_)), params_);
        }
        return *reader_;
    }

    llama_context * ctx_;            // null: it is gone
    std::map<int32_t, Work> works_;  // of slots that have begun a task
    triattn::DecoderParams params_;
    std::unique_ptr<triattn::QuestionReader> reader_;
    mutable std::mutex mutex_;
    std::vector<SlotState> states_;
    Totals totals_;
};

// One server a process, as upstream's is.
std::optional<BudgetSettings> settings;
std::optional<ggml_type> cache_type_k, cache_type_v;
std::shared_ptr<Slots> slots;
std::mutex slots_mutex;  // others than the thread that computes ask for them
std::exception_ptr error;
std::mutex requests_mutex;
std::map<int, int32_t> budget_of_task;  // where a request names one
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
    common_init_result_ptr result = common_init_from_params(params);
    // from here on it is what the slots may read
    params.n_ctx = static_cast<int32_t>(wanted.n_ctx) * params.n_parallel;
    if (llama_context * ctx = result->context(); ctx != nullptr) {
        triattn::set_positions(ctx, static_cast<uint32_t>(wanted.n_ctx));
        auto made = std::make_shared<Slots>(ctx, *settings, wanted);
        if (!params.mmproj.path.empty()) {
            triattn::check_images(made->view());
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

}  // namespace

void set_budget(std::optional<BudgetSettings> wanted) { settings = std::move(wanted); }

void set_cache_types(std::optional<ggml_type> type_k, std::optional<ggml_type> type_v) {
    cache_type_k = type_k;
    cache_type_v = type_v;
}

std::exception_ptr take_error() { return std::exchange(error, nullptr); }

common_init_result_ptr make_context(common_params & params) {
    params.cache_type_k = cache_type_k.value_or(params.cache_type_k);
    params.cache_type_v = cache_type_v.value_or(params.cache_type_v);
    if (!settings) {
        return common_init_from_params(params);
    }
    try {
        return make_bounded_context(params);
    } catch (...) {
        // an exception would pass threads that must be joined; without a context the server ends by itself
        error = std::current_exception();
        common_params none = params;
        none.model.path = "";
        return common_init_from_params(none, /*model_only*/ true);
    }
}

int32_t process(llama_context * ctx, llama_process_type type, llama_batch_ext * batch) {
    try {
        const int32_t status = llama_process(ctx, type, batch);
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

void note_request(int task_id, const common_json & request) {
    if (!request.contains(BUDGET_FIELD) || request.at(BUDGET_FIELD).is_null()) {
        return;
    }
    const common_json & value = request.at(BUDGET_FIELD);
    if (!settings) {
        throw std::invalid_argument(std::string(BUDGET_FIELD) +
                                    " needs a server that was started with --triattention-budget");
    }
    const auto & eviction = settings->eviction;
    const int64_t least = triattn::least_budget(eviction.window, eviction.n_sink);
    if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > eviction.budget) {
        throw std::invalid_argument(std::string(BUDGET_FIELD) + " is " + value.dump_safe() +
                                    ", it must be a whole number from " + std::to_string(least) + " to " +
                                    std::to_string(eviction.budget) + ", the budget of this server");
    }
    const std::lock_guard lock(requests_mutex);
    budget_of_task[task_id] = static_cast<int32_t>(value.get<int64_t>());
    if (budget_of_task.size() > MAX_WAITING) {
        budget_of_task.erase(budget_of_task.begin());  // of a task that was given up before it began
    }
}

void slot_works(int slot_id, const server_task & task) {
    if (!slots) {
        return;
    }
    if (const auto found = task_of_slot.find(slot_id); found != task_of_slot.end() && found->second == task.id) {
        return;
    }
    task_of_slot[slot_id] = task.id;
    std::optional<int32_t> budget;
    {
        const std::lock_guard lock(requests_mutex);
        if (const auto node = budget_of_task.extract(task.id); !node.empty()) {
            budget = node.mapped();
        }
    }
    try {
        slots->start(slot_id, task, budget);
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
    return common_json::object({
        {"budget", state.budget},
        {"resident_keys", state.n_keys},
        {"evictions", state.counters.n_evictions},
        {"evicted_tokens", state.counters.n_tokens_evicted},
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
