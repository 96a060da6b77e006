// The ways to choose which keys stay, by name, and what each of them needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace triattn {

enum class Mode { fitted, per_layer_head, per_head, per_layer, global, recent, random, custom };

// The modes that choose by themselves; Mode::custom, which asks a Chooser, is not among them.
const std::vector<std::string> & mode_names();

std::string mode_name(Mode mode);

// Throws BudgetError for a name that is none of them.
Mode mode_from_name(const std::string & name);

// Whether the mode can keep different keys in different heads: then rows must move.
bool moves_rows(Mode mode);
bool needs_scores(Mode mode);

// What is said where a model has no layer to evict from.
extern const char * const NOTHING_TO_EVICT;

// Checks that the mode can evict from a model. `n_head_kv`: KV heads of each layer with full attention; `has_alibi`:
// its attention is biased by distance. Throws UnsupportedModelError.
void check_mode(Mode mode, const std::vector<int32_t> & n_head_kv, bool has_alibi);

}  // namespace triattn
