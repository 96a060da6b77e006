// Included before upstream's server-context.cpp and server.cpp, which are compiled as they are: these names then mean
// functions of ours that call the same ones. The pin keeps the places where they stand; a name that goes from there
// leaves a slot without its budget, which tests/server/ would find.
#pragma once

#include "bounded_routes.h"
#include "bounded_server.h"
#include "open_responses.h"

#include "common.h"
#include "llama.h"
#include "server-context.h"
#include "server-schema.h"

#ifdef PYTRIATTN_HOOK_CONTEXT
#    define common_init_from_params(params) ::pytriattn::server::make_context(params)
#    define llama_process(ctx, type, rendered) ::pytriattn::server::process(ctx, type, batch.view)
#    define common_context_can_seq_rm(ctx) ::pytriattn::server::seq_rm_type(ctx)
#    define llama_n_rs_seq(ctx) ::pytriattn::server::n_rs_seq(ctx)
#    define common_speculative_draft(spec) ::pytriattn::server::draft(spec)
// where the fields of a request are read
#    define eval_llama_cmpl_schema(vocab, params, logit_bias, request) \
        eval_llama_cmpl_schema(vocab, params, logit_bias, ::pytriattn::server::note_request(vocab, task, request))
// what a slot hands out in the end
#    define server_task_result_cmpl_final ::pytriattn::server::FinalResult
// asked of every slot before its part of a step
#    define llama_memory_seq_pos_min(memory, seq) \
        (::pytriattn::server::slot_works(slot.id, *slot.task), llama_memory_seq_pos_min(memory, seq))
#endif

#ifdef PYTRIATTN_HOOK_ROUTES
#    define server_routes ::pytriattn::server::BoundedRoutes
#endif
