// A budget for upstream's server: its context is made within one, and each of its slots keeps to it.
#pragma once

#include "eviction_config.h"
#include "stats.h"

#include "common.h"
#include "json.h"
#include "llama.h"
#include "server-task.h"
#include "speculative.h"

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

namespace pytriattn::server {

// What the program was started with beside upstream's own flags.
struct BudgetSettings {
    triattn::EvictionConfig eviction;
    triattn::Stats stats;
    int64_t n_ctx_train = 0;       // of the model: positions of a slot where -c says nothing
    int32_t n_swa = 0;             // its sliding window, 0 if it has none
    std::string stats_path;        // to be shown
    bool protects_prompt = false;  // of a prompt nothing is evicted
};

// Before the server starts; none: it runs as upstream's does.
void set_budget(std::optional<BudgetSettings> settings);

// Types of cached keys and values that upstream's own flags do not take; none: what the flags say.
void set_cache_types(std::optional<ggml_type> type_k, std::optional<ggml_type> type_v);

// Steps are computed with this many threads from now on; any thread may say so.
void set_threads(int32_t n);

// What making the context failed with, once; null if it did not.
std::exception_ptr take_error();

// The functions below stand in the place of upstream's in its own code: see hooks.h.

// As common_init_from_params. With a budget, -c is what each slot may read, and its cache has cells for the budget.
common_init_result_ptr make_context(common_params & params);

// As llama_process; an exception becomes a failed step, which upstream answers with an error.
int32_t process(llama_context * ctx, llama_process_type type, common_batch & batch);

// As common_context_can_seq_rm and llama_n_rs_seq. A sequence that was pruned cannot be cut back far, whatever its kind of
// cache: said in this way, upstream keeps copies of a slot's cache to go back to, and still takes back drafts without.
common_context_seq_rm_type seq_rm_type(llama_context * ctx);
uint32_t n_rs_seq(const llama_context * ctx);

// As common_speculative_draft, but no draft reaches past the next eviction: without drafting it would take place there, and
// what is kept must not depend on what was guessed.
void draft(common_speculative * spec);

// A request has come in: what it says of its budget and its question is remembered for its task, whose prompt is known.
// Returns it as it is to be followed. Throws std::invalid_argument.
common_json note_request(const llama_vocab * vocab, const server_task & task, const common_json & request);

// A slot works on a task: at its first step the slot gets the task's budget and question.
void slot_works(int slot_id, const server_task & task);

// What the routes add to upstream's answers; null and empty without a budget.
common_json describe();
common_json describe_slot(int slot_id);
std::string metrics();

}  // namespace pytriattn::server
