#include "stats.h"

#include "errors.h"

#include <cmath>
#include <string>

namespace triattn {

void check(const LayerStats & layer) {
    check(layer.rope);
    const std::string where = "layer " + std::to_string(layer.layer) + ": ";
    if (layer.n_head_kv <= 0 || layer.n_head <= 0 || layer.n_head % layer.n_head_kv != 0) {
        throw StatsError(where + std::to_string(layer.n_head) + " query heads do not divide over " +
                         std::to_string(layer.n_head_kv) + " KV heads");
    }
    if (layer.centre.size() != static_cast<size_t>(layer.n_head) * layer.rope.head_dim ||
        layer.magnitude.size() != static_cast<size_t>(layer.n_head) * layer.rope.n_bands()) {
        throw StatsError(where + "centre or magnitude has the wrong size");
    }
    for (float x : layer.centre) {
        if (!std::isfinite(x)) throw StatsError(where + "a centre is not finite");
    }
    for (float x : layer.magnitude) {
        if (!std::isfinite(x) || x < 0) throw StatsError(where + "a magnitude is negative or not finite");
    }
    if (layer.fit.size() % static_cast<size_t>(layer.n_head_kv) != 0) {
        throw StatsError(where + "the fitted weights do not divide over the KV heads");
    }
    for (float x : layer.fit) {
        if (!std::isfinite(x)) throw StatsError(where + "a fitted weight is not finite");
    }
}

}  // namespace triattn
