#include "fork_guard.h"

#include "bindings.h"

#include "ggml-backend.h"

#include <cstring>
#ifndef _WIN32
#    include <pthread.h>
#endif

namespace pytriattn {
namespace {

std::atomic<bool> has_computed{false}, is_forked{false};

// Whether the CPU's backend names this feature as one that it uses.
bool cpu_uses(const char * name) {
    ggml_backend_reg_t cpu = ggml_backend_reg_by_name("CPU");
    const auto features = cpu == nullptr ? nullptr
                                         : reinterpret_cast<ggml_backend_get_features_t>(
                                               ggml_backend_reg_get_proc_address(cpu, "ggml_backend_get_features"));
    if (features == nullptr) {
        return false;
    }
    for (const ggml_backend_feature * feature = features(cpu); feature->name != nullptr; ++feature) {
        if (std::strcmp(feature->name, name) == 0) {
            return std::strcmp(feature->value, "0") != 0;
        }
    }
    return false;
}

// GNU's library does not start OpenMP's threads again after a fork.
bool cpu_has_openmp() { return cpu_uses("OPENMP"); }

bool has_gpu() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) != nullptr ||
           ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU) != nullptr;
}

}  // namespace

void watch_forks() {
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, [] { is_forked = has_computed.load(); });
#endif
}

void check_not_forked(int n_threads, bool has_worker) {
    if (has_computed && !is_forked) {
        return;
    }
    const bool cannot_fork = has_worker || has_gpu() || (n_threads > 1 && cpu_has_openmp());
    if (is_forked && cannot_fork) {
        throw BackendError(
            "this process was forked from one that has computed with several threads or a device, which a fork loses; "
            "start it with 'spawn' (multiprocessing.get_context('spawn')), or compute after forking only");
    }
    has_computed = has_computed || cannot_fork;
}

void check_loading_not_forked() {
    if (cpu_uses("AMX_INT8") && cpu_has_openmp()) {
        check_not_forked(/*n_threads*/ 2);
    }
}

}  // namespace pytriattn
