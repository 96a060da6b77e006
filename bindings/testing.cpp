// What serves tests of the engine and nothing else: the submodule _core.testing.
#include "context.h"

#include "attention_probe.h"
#include "cache_devices.h"
#include "key_feedback.h"
#include "kv_feedback.h"

#include <algorithm>
#include <optional>

namespace pytriattn {
namespace {

using triattn::AttentionNode;
using triattn::Decoder;

std::vector<triattn::KvCell> cells(Context & context, int seq) {
    return context.run_with_gil([&](Decoder & d) { return view_of(d).cells(seq); });
}

// The stored rows of one tensor of the cache as bytes: for tests that compare caches bit for bit.
py::bytes cache_rows(Context & context, int seq, int layer, bool value) {
    return context.run_with_gil([&](Decoder & d) {
        for (const triattn::KvLayer & l : view_of(d).layers()) {
            if (l.layer == layer) {
                ggml_tensor * t = value ? l.v : l.k;
                if (t == nullptr) {
                    throw triattn::ContextError("layer " + std::to_string(layer) + " stores no values of its own");
                }
                std::string bytes(t->nb[2], '\0');
                ggml_backend_tensor_get(t, bytes.data(), d.view()->stream_of(seq) * t->nb[2], bytes.size());
                return py::bytes(bytes);
            }
        }
        throw triattn::ContextError("layer " + std::to_string(layer) + " has no full-attention cache of its own");
    });
}

// RoPE of vectors [n, head_dim] by the operator in the model's own graph, as the queries of `layer` get it.
array<float> apply_rope(Context & context, int layer, const array<float> & vectors, const array<int32_t> & positions) {
    const std::vector<float> x = to_vector(vectors);
    const std::vector<int32_t> p = to_vector(positions);
    return context.run_with_gil([&](Decoder & d) {
        const auto nodes = triattn::probe_attention(view_of(d));
        const auto node =
            std::find_if(nodes.begin(), nodes.end(), [&](const AttentionNode & n) { return n.layer == layer; });
        if (node == nodes.end()) {
            throw triattn::ContextError("layer " + std::to_string(layer) + " has no attention");
        }
        const py::ssize_t n = static_cast<py::ssize_t>(p.size()), head_dim = node->rope.head_dim;
        if (vectors.ndim() != 2 || vectors.shape(0) != n || vectors.shape(1) != head_dim) {
            throw triattn::ContextError("vectors must be [n_positions, " + std::to_string(head_dim) + "]");
        }
        return to_array(node->op ? triattn::run_rope(*node->op, x, node->rope.head_dim, p) : x, {n, head_dim});
    });
}

// Scores of the keys in the order of cells(): one [n_head, n_keys] for each layer that is evicted from.
std::vector<array<float>> scores(Context & context, int seq) {
    return context.run_with_gil([&](Decoder & d) {
        std::vector<array<float>> result;
        if (d.controller() != nullptr) {
            const py::ssize_t n = static_cast<py::ssize_t>(d.view()->cells(seq).size());
            for (const std::vector<float> & layer : d.controller()->scores(seq)) {
                result.push_back(to_array(layer, {static_cast<py::ssize_t>(layer.size()) / n, n}));
            }
        }
        return result;
    });
}

// Queries that will score a layer's keys.
struct Queries {
    array<int32_t> positions;  // [n]
    array<float> rows;         // [n, n_head, head_dim]
};

// Those of the text, of its question, or the standing ones as they are read alone. Empty in a mode that looks at none.
Queries queries(Context & context, int seq, size_t layer, const std::string & of) {
    return context.run_with_gil([&](Decoder & d) {
        triattn::QuerySet set;
        triattn::KeyScorer * scorer = d.controller() != nullptr ? d.controller()->key_scorer() : nullptr;
        const py::ssize_t width = d.view()->layers().at(layer).head_dim_k;
        if (scorer != nullptr) {
            const triattn::LayerQueries & all = of == "standing"   ? scorer->standing_queries()
                                                : of == "question" ? scorer->question(seq)
                                                                   : scorer->queries(seq);
            set = all.empty() ? set : all.at(layer).front();
        }
        const auto n = static_cast<py::ssize_t>(set.positions.size());
        const py::ssize_t n_head = n > 0 ? static_cast<py::ssize_t>(set.rows.size()) / n / width : 0;
        return Queries{to_array(set.positions, {n}), to_array(set.rows, {n, n_head, width})};
    });
}

// The operations of eviction that a device lacks, in words; without a name: the devices that hold the cache.
std::vector<std::string> missing_operations(Context & context, const std::string & device) {
    ggml_backend_dev_t chosen = device.empty() ? nullptr : ggml_backend_dev_by_name(device.c_str());
    if (!device.empty() && chosen == nullptr) {
        throw triattn::ContextError("there is no device '" + device + "' on this machine");
    }
    return context.run_with_gil([&](Decoder & d) {
        return d.controller() != nullptr ? d.controller()->missing_operations(chosen) : std::vector<std::string>();
    });
}

// Makes mode fitted multiply queries by copies of rows, as on devices that cannot multiply by the cache as it lies.
void read_keys_from_rows(Context & context) {
    context.run_with_gil([&](Decoder & d) {
        if (d.controller() == nullptr || d.controller()->key_scorer() == nullptr) {
            throw triattn::ContextError("this context does not evict in mode 'fitted'");
        }
        d.controller()->key_scorer()->read_keys_from(triattn::KeySource::rows);
    });
}

// Keys that mode fitted has read from the cache to score them, of all sequences.
int64_t keys_entered(Context & context) {
    return context.run_with_gil([](Decoder & d) {
        return d.controller() != nullptr && d.controller()->key_scorer() != nullptr
                   ? d.controller()->key_scorer()->n_entered()
                   : int64_t{0};
    });
}

// Refuses a type, given by ggml's number, that a device cannot store in a cache.
void check_cache_device(const std::string & device, int type) {
    ggml_backend_dev_t found = ggml_backend_dev_by_name(device.c_str());
    if (found == nullptr || type < 0 || type >= GGML_TYPE_COUNT) {
        throw triattn::ContextError("there is no such device or type");
    }
    triattn::check_cache_devices({found}, static_cast<ggml_type>(type), GGML_TYPE_F16);
}

// What is left of rows of `width` values, as ggml's reference stores them in a type.
array<float> round_rows(const array<float> & values, const std::string & type, int64_t width) {
    const ggml_type kind = triattn::cache_type_from_name(type);
    const ggml_type_traits * traits = ggml_get_type_traits(kind);
    const std::vector<float> from = to_vector(values);
    const auto n = static_cast<int64_t>(from.size());
    if (width < 1 || width % traits->blck_size != 0 || n % width != 0 || traits->from_float_ref == nullptr) {
        throw triattn::ContextError("rows of " + std::to_string(width) + " values cannot be stored as " + type);
    }
    std::vector<float> to(from.size());
    std::vector<uint8_t> row(ggml_row_size(kind, width));
    for (int64_t i = 0; i < n; i += width) {
        traits->from_float_ref(from.data() + i, row.data(), width);
        traits->to_float(row.data(), to.data() + i, width);
    }
    return to_array(to, {n / width, width});
}

// From now on keys of the type kv3 are stored as the nearest levels; the number of layers that this concerns.
size_t store_nearest(Context & context) {
    return context.run_with_gil([](Decoder & d) { return triattn::attach_feedback(d.context()).size(); });
}

// The bytes of the feedback of a head, from [d, d] sums over its queries.
py::bytes solve_feedback(const array<double> & squares) {
    if (squares.ndim() != 2 || squares.shape(0) != squares.shape(1)) {
        throw triattn::ContextError("squares must be a square matrix");
    }
    const std::vector<uint8_t> bytes =
        triattn::solve_feedback(to_vector(squares), static_cast<size_t>(squares.shape(0)));
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

// The matrix that llama.cpp multiplies pieces of a quantised cache's keys by; None if it does not.
std::optional<array<float>> k_rotation(Context & context) {
    return context.run_with_gil([](Decoder & d) -> std::optional<array<float>> {
        const int n = view_of(d).k_rotation_size();
        return n > 0 ? std::optional(to_array(d.view()->k_rotation(), {n, n})) : std::nullopt;
    });
}

// RoPE of one vector [head_dim] in double precision.
array<double> rotate(const triattn::LayerStats & layer, const array<double> & x, double position) {
    if (x.ndim() != 1 || x.size() != layer.rope.head_dim) {
        throw triattn::StatsError("x must have head_dim elements");
    }
    std::vector<double> out(static_cast<size_t>(x.size()));
    triattn::rotate(layer.rope, x.data(), position, out.data());
    return to_array(out, {x.size()});
}

}  // namespace

void add_testing(py::module_ & m) {
    py::module_ testing = m.def_submodule("testing", "What serves tests of the engine and nothing else.");
    testing.def("cells", &cells, py::arg("context"), py::arg("seq") = 0,
                "The cells of a sequence, by ascending position.");
    testing.def("cache_rows", &cache_rows, py::arg("context"), py::arg("seq"), py::arg("layer"), py::arg("value"),
                "The stored rows of a layer's keys or values as bytes.");
    testing.def("k_rotation", &k_rotation, py::arg("context"),
                "The matrix that pieces of a quantised cache's keys are multiplied by, float32; None without one.");
    testing.def("apply_rope", &apply_rope, py::arg("context"), py::arg("layer"), py::arg("vectors"),
                py::arg("positions"), "RoPE of vectors [n, head_dim] as the model's own graph gives it to queries.");
    testing.def("scores", &scores, py::arg("context"), py::arg("seq") = 0,
                "Scores of the keys in the order of cells(): float32 [n_head, n_keys] for each layer that is evicted "
                "from, of KV heads in mode 'fitted'; empty if the mode needs none.");
    py::class_<Queries>(testing, "Queries", "Queries that will score a layer's keys.")
        .def_readonly("positions", &Queries::positions, "Where they were asked: int32 [n].")
        .def_readonly("rows", &Queries::rows, "The queries after RoPE: float32 [n, n_head, head_dim].");
    testing.def("queries", &queries, py::arg("context"), py::arg("seq") = 0, py::arg("layer") = 0,
                py::arg("of") = "text",
                "The queries that will score a layer's keys: of the 'text', of its 'question', or 'standing' ones as "
                "they are read alone; none in a mode that looks at none.");
    testing.def(
        "read_again", [](Context & context, int seq) { context.run_with_gil([&](Decoder & d) { d.read_again(seq); }); },
        py::arg("context"), py::arg("seq") = 0, "The second reading that comes before an eviction with reread=True.");
    testing.def("missing_operations", &missing_operations, py::arg("context"), py::arg("device") = std::string(),
                "The operations of eviction that a device lacks, in words; without a name: the cache's devices.");
    testing.def("read_keys_from_rows", &read_keys_from_rows, py::arg("context"),
                "Make mode fitted copy rows of keys before it multiplies them, as some devices need it.");
    testing.def("keys_entered", &keys_entered, py::arg("context"),
                "Keys that mode fitted has read from the cache to score them, of all sequences.");
    testing.def("check_cache_device", &check_cache_device, py::arg("device"), py::arg("type"),
                "Check that a device can store keys of a type, given by ggml's number. Raises ContextError.");
    testing.def("round_rows", &round_rows, py::arg("values"), py::arg("type"), py::arg("width"),
                "What is left of values that are stored in rows of `width` as a type of caches: float32 [n, width].");
    testing.def(
        "store_nearest", &store_nearest, py::arg("context"),
        "From now on a context stores keys of the type kv3 as the nearest levels. Returns the number of layers.");
    testing.def("solve_feedback", &solve_feedback, py::arg("squares"),
                "How a head's keys of the type kv3 are stored (kv3.h), from sums [d, d] over its queries.");
    testing.def(
        "remove",
        [](Context & context, int seq, const std::vector<int32_t> & positions) {
            context.run_with_gil([&](Decoder & d) { d.remove(seq, positions); });
        },
        py::arg("context"), py::arg("seq"), py::arg("positions"),
        "Take positions out of the layers with full attention by llama.cpp's own means. Raises ContextError in a "
        "context that evicts by itself.");
    testing.def("rotate", &rotate, py::arg("layer"), py::arg("x"), py::arg("position"),
                "RoPE of one vector [head_dim] by a layer's statistics, float64.");
    add_reference_loop(testing);
}

}  // namespace pytriattn
