// Scoring, selection and the compaction plan on numpy arrays, through the code that decoding uses.
#include "bindings.h"
#include "repr.h"

#include "compactor.h"
#include "scorer.h"
#include "selector.h"

#include <algorithm>

namespace pytriattn {
namespace {

using triattn::LayerStats;

array<float> score_keys(const LayerStats & layer, const array<float> & keys, int64_t position,
                        const std::vector<int32_t> & offsets, bool use_trig, bool use_norm, bool use_unrotated,
                        bool on_host) {
    if (keys.ndim() != 3 || keys.shape(1) != layer.n_head_kv || keys.shape(2) != layer.rope.head_dim) {
        throw triattn::StatsError("keys has the shape " + shape_of(keys) + ", it must be [n_keys, " +
                                  std::to_string(layer.n_head_kv) + ", " + std::to_string(layer.rope.head_dim) + "]");
    }
    const auto options = score_options(offsets, use_trig, use_norm, use_unrotated);
    const std::vector<float> values = to_vector(keys);
    std::vector<float> scores;
    {
        const GilRelease release;
        scores = triattn::score_keys(layer, values, keys.shape(0), position, options, on_host);
    }
    return to_array(scores, {layer.n_head, keys.shape(0)});
}

std::vector<uint8_t> to_marks(const array<bool> & values) {
    std::vector<uint8_t> result;
    for (py::ssize_t i = 0; i < values.size(); ++i) {
        result.push_back(values.data()[i] ? 1 : 0);
    }
    return result;
}

// Returns the query heads of each KV head. Throws StatsError.
triattn::LayerShape layer_shape(py::ssize_t n_head, int n_head_kv) {
    if (n_head_kv < 1 || n_head < 1 || n_head % n_head_kv != 0) {
        throw triattn::StatsError("scores has " + std::to_string(n_head) +
                                  " query heads, it must have a positive multiple of n_head_kv, " +
                                  std::to_string(n_head_kv));
    }
    return {static_cast<int>(n_head), n_head_kv};
}

array<float> group_scores(const array<float> & scores, int n_head_kv, bool on_host) {
    if (scores.ndim() != 2) {
        throw triattn::StatsError("scores has the shape " + shape_of(scores) + ", it must be [n_head, n_keys]");
    }
    const triattn::LayerShape shape = layer_shape(scores.shape(0), n_head_kv);
    const auto n_keys = static_cast<size_t>(scores.shape(1));
    std::vector<float> result(n_keys * static_cast<size_t>(n_head_kv));
    if (on_host || n_keys == 0) {
        triattn::group_scores(scores.data(), n_keys, shape, result.data());
    } else {
        result = triattn::group_scores_by_graph(to_vector(scores), n_keys, shape);
    }
    return to_array(result, {n_head_kv, scores.shape(1)});
}

array<bool> select(const std::string & mode, const array<float> & scores, int n_head_kv, int64_t n_keep,
                   uint64_t seed) {
    if (scores.ndim() != 3) {
        throw triattn::StatsError("scores has the shape " + shape_of(scores) +
                                  ", it must be [n_layers, n_head, n_keys]");
    }
    if (n_keep < 0) {
        throw triattn::BudgetError("n_keep is " + std::to_string(n_keep) + ", it must not be negative");
    }
    const triattn::LayerShape shape = layer_shape(scores.shape(1), n_head_kv);
    const auto n_keys = static_cast<size_t>(scores.shape(2));
    triattn::Scores grouped;
    for (py::ssize_t l = 0; l < scores.shape(0); ++l) {
        grouped.emplace_back(n_keys * static_cast<size_t>(n_head_kv));
        triattn::group_scores(scores.data(l), n_keys, shape, grouped.back().data());
    }
    const std::vector<triattn::LayerShape> shapes(static_cast<size_t>(scores.shape(0)), shape);
    const triattn::Kept kept =
        triattn::select(triattn::mode_from_name(mode), grouped, shapes, n_keys, static_cast<size_t>(n_keep), seed);
    array<bool> result({scores.shape(0), static_cast<py::ssize_t>(n_head_kv), scores.shape(2)});
    bool * out = result.mutable_data();
    for (const auto & layer : kept) {
        for (const auto & head : layer) {
            out = std::transform(head.begin(), head.end(), out, [](uint8_t keep) { return keep != 0; });
        }
    }
    return result;
}

struct CompactionPlan {
    std::vector<uint32_t> freed;  // slots
    std::vector<std::vector<std::vector<triattn::Move>>> moves;
};

CompactionPlan plan_compaction(const array<bool> & kept, const array<uint32_t> & slots) {
    if (kept.ndim() != 3 || kept.size() == 0 || kept.shape(2) != slots.size()) {
        throw triattn::StatsError("kept and slots have the shapes " + shape_of(kept) + " and " + shape_of(slots) +
                                  ", they must be [n_layers, n_head_kv, n_keys] and [n_keys]");
    }
    const std::vector<uint8_t> flat = to_marks(kept);
    triattn::Kept layers;
    auto next = flat.begin();
    for (py::ssize_t l = 0; l < kept.shape(0); ++l) {
        layers.emplace_back();
        for (py::ssize_t h = 0; h < kept.shape(1); ++h, next += kept.shape(2)) {
            layers.back().emplace_back(next, next + kept.shape(2));
        }
    }
    std::vector<triattn::KvCell> cells;
    for (py::ssize_t i = 0; i < slots.size(); ++i) {
        cells.push_back({slots.data()[i], static_cast<int32_t>(i)});
    }
    triattn::CompactionPlan plan = triattn::plan_compaction(layers, cells);
    CompactionPlan result;
    for (size_t i = 0; i < plan.freed.size(); ++i) {
        if (plan.freed[i]) {
            result.freed.push_back(cells[i].slot);
        }
    }
    result.moves = std::move(plan.moves);
    return result;
}

void add_compaction_plan(py::module_ & m) {
    auto move = py::class_<triattn::Move>(m, "Move", "A head's row that is copied from one cell to another.")
                    .def_readonly("source", &triattn::Move::from, "Slot of a cell that will be freed.")
                    .def_readonly("target", &triattn::Move::to, "Slot of a cell that stays.");
    add_repr(move, {"source", "target"});
    auto plan = py::class_<CompactionPlan>(m, "CompactionPlan", "How kept keys come into a common set of cells.")
                    .def_readonly("freed", &CompactionPlan::freed, "Slots of the cells that are given back.")
                    .def_readonly("moves", &CompactionPlan::moves, "Copies, for each layer and KV head a list.");
    add_repr(plan, {"freed", "moves"});
}

}  // namespace

triattn::ScoreOptions score_options(const std::vector<int32_t> & offsets, bool use_trig, bool use_norm,
                                    bool use_unrotated) {
    triattn::ScoreOptions options;
    options.offsets = offsets;
    options.use_trig = use_trig;
    options.use_norm = use_norm;
    options.use_unrotated = use_unrotated;
    return options;
}

void add_engine(py::module_ & m) {
    add_compaction_plan(m);
    m.attr_with_type_hint<py::typing::List<py::int_>>("DEFAULT_OFFSETS") = triattn::ScoreOptions().offsets;
    m.def(
        "synthetic_query",
        [](const LayerStats & layer, int64_t position, const std::vector<int32_t> & offsets) {
            return to_array(
                triattn::synthetic_query(layer, position,
                                         triattn::offset_means(layer, score_options(offsets, true, true, true))),
                {layer.n_head, layer.rope.head_dim});
        },
        py::arg("layer"), py::arg("position"), py::arg("offsets"));
    m.def("score_keys", &score_keys, py::arg("layer"), py::arg("keys"), py::arg("position"), py::arg("offsets"),
          py::arg("use_trig"), py::arg("use_norm"), py::arg("use_unrotated"), py::arg("on_host") = true);
    m.def("group_scores", &group_scores, py::arg("scores"), py::arg("n_head_kv"), py::arg("on_host") = true);
    m.def("select", &select, py::arg("mode"), py::arg("scores"), py::arg("n_head_kv"), py::arg("n_keep"),
          py::arg("seed"));
    m.def("plan_compaction", &plan_compaction, py::arg("kept"), py::arg("slots"));
}

}  // namespace pytriattn
