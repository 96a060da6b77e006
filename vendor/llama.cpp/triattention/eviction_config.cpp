#include "eviction_config.h"

#include "errors.h"

#include <algorithm>
#include <string>

namespace triattn {

int64_t least_budget(int32_t window, int32_t n_sink) { return static_cast<int64_t>(n_sink) + window + 1; }

void check(const EvictionConfig & config) {
    if (config.interval < 1) {
        throw BudgetError("interval is " + std::to_string(config.interval) + ", it must be at least 1");
    }
    if (config.window < 1) {
        throw BudgetError("window is " + std::to_string(config.window) +
                          ", it must be at least 1: the newest key must stay");
    }
    if (config.n_sink < 0) {
        throw BudgetError("n_sink is " + std::to_string(config.n_sink) + ", it must not be negative");
    }
    const int64_t least = least_budget(config.window, config.n_sink);
    if (config.budget < least) {
        throw BudgetError("budget is " + std::to_string(config.budget) + ", but n_sink (" +
                          std::to_string(config.n_sink) + ") + window (" + std::to_string(config.window) +
                          ") + 1 need at least " + std::to_string(least) + "; raise the budget or lower window");
    }
    check(config.key_score);
    if (config.reread && config.mode != Mode::fitted) {
        throw BudgetError("reread is on, but mode '" + mode_name(config.mode) +
                          "' has no use for a second reading; use mode 'fitted'");
    }
    if (config.mode == Mode::custom && !config.chooser) {
        throw BudgetError("mode 'custom' asks a chooser which keys stay, and there is none; give one");
    }
    if (config.mode != Mode::custom && config.chooser) {
        throw BudgetError("mode is '" + mode_name(config.mode) +
                          "', which does not ask the chooser that was given; use mode 'custom'");
    }
}

void check_protected_prompt(int64_t n_protected, const EvictionConfig & config) {
    if (n_protected > 0 && n_protected + config.window + 1 > config.budget) {
        throw BudgetError("a protected prompt of " + std::to_string(n_protected) + " tokens and a window of " +
                          std::to_string(config.window) + " do not fit the budget of " + std::to_string(config.budget) +
                          "; raise the budget or use protect_prompt=False");
    }
}

bool leaves_little_to_choose(const EvictionConfig & config, int64_t n_protected) {
    const int64_t n_first = std::max<int64_t>(n_protected, config.n_sink);
    return config.mode != Mode::recent && 10 * (config.budget - n_first - config.window) < config.budget;
}

}  // namespace triattn
