#include "bindings.h"
#include "fork_guard.h"

PYBIND11_MODULE(_core, m) {
    using namespace pytriattn;
    m.doc() = "The compiled part of pytriattn. Use the package's own classes; this interface may change.";
    m.attr("LLAMA_CPP_COMMIT") = PYTRIATTN_LLAMA_COMMIT;
    watch_forks();
    add_errors(m);
    add_log(m);
    add_backends(m);
    add_model(m);
    add_rope_overrides(m);
    add_stats(m);
    add_records(m);
    add_eviction_view(m);
    add_settings(m);
    add_rules(m);
    add_attention(m);
    add_engine(m);
    add_sampler(m);
    add_chat(m);
    add_context(m);
    add_drafter(m);
    add_adapters(m);
    add_testing(m);
    add_rpc(m);
}
