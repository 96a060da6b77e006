// What happens after fork: a child has none of its parent's threads.
#pragma once

namespace pytriattn {

// Has children of fork remembered as such. Call once, when the module is imported.
void watch_forks();

// Call before computing. `n_threads`: those of the CPU. `has_worker`: whether another thread waits for the work to be
// done. Throws BackendError in a child that would wait for ever for threads or devices which its parent has used.
void check_not_forked(int n_threads, bool has_worker = false);

// Call before loading a model, which needs threads too where the CPU has AMX: weights are then repacked by all of them.
void check_loading_not_forked();

}  // namespace pytriattn
