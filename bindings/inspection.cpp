// What a context holds and does, for statistics, tests and research.
#include "context.h"
#include "rope_properties.h"

#include "attention_probe.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

namespace pytriattn {
namespace {

using triattn::AttentionNode;
using triattn::Decoder;

const triattn::KvView & view_of(const Decoder & decoder) {
    if (decoder.view() == nullptr) {
        throw triattn::UnsupportedModelError("this model keeps no KV cache of a kind that can be looked into");
    }
    return *decoder.view();
}

std::map<std::string, int64_t> counters(Context & self, int seq) {
    return self.run_with_gil([&](Decoder & d) {
        std::map<std::string, int64_t> r;
        r["n_tokens"] = d.n_tokens(seq);
        r["n_decoded"] = d.counters().n_decoded;
        r["cells_allocated"] = d.view() ? static_cast<int64_t>(d.view()->n_cells()) * d.view()->n_stream() : 0;
        r["cells_used"] = d.view() ? d.view()->n_used(seq) : 0;
        const triattn::KvBytes bytes = d.view() ? d.view()->bytes() : triattn::KvBytes{};
        r["k_bytes"] = bytes.k + bytes.sliding_k;
        r["v_bytes"] = bytes.v + bytes.sliding_v;
        r["sliding_bytes"] = bytes.sliding_k + bytes.sliding_v;
        r["recurrent_bytes"] = bytes.recurrent;
        const triattn::EvictionCounters e = d.controller() ? d.controller()->counters() : triattn::EvictionCounters();
        r["n_evictions"] = e.n_evictions;
        r["n_tokens_evicted"] = e.n_tokens_evicted;
        return r;
    });
}

// Bytes of the cache by the name of the device that holds them.
std::map<std::string, int64_t> device_bytes(Context & self) {
    return self.run_with_gil([&](Decoder & d) {
        std::map<std::string, int64_t> r;
        const triattn::KvBytes bytes = d.view() ? d.view()->bytes() : triattn::KvBytes{};
        for (const auto & [device, n] : bytes.by_device) {
            r[self.device_name(device)] += n;
        }
        return r;
    });
}

std::map<std::string, double> seconds(Context & self) {
    return self.run_with_gil([](Decoder & d) {
        const triattn::EvictionCounters e = d.controller() ? d.controller()->counters() : triattn::EvictionCounters();
        return std::map<std::string, double>{{"decoding", d.counters().decoding_s},
                                             {"scoring", e.scoring_s},
                                             {"selection", e.selection_s},
                                             {"compaction", e.compaction_s}};
    });
}

// The stored rows of one tensor of the cache as bytes: for tests that compare caches bit for bit.
py::bytes cache_rows(Context & self, int seq, int layer, bool value) {
    return self.run_with_gil([&](Decoder & d) {
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

// The parameters of the RoPE operator as ggml names them; None for a layer without RoPE.
std::optional<py::typing::Dict<py::str, py::object>> operator_of(const AttentionNode & node) {
    if (!node.op) {
        return std::nullopt;
    }
    const auto & params = node.op->params;
    const auto number = [&](size_t i) {
        float value = 0;
        std::memcpy(&value, &params[i], sizeof value);
        return value;
    };
    py::typing::Dict<py::str, py::object> r;
    r["n_dims"] = params[1];
    r["mode"] = params[2];
    r["n_ctx_orig"] = params[4];
    r["freq_base"] = number(5);
    r["freq_scale"] = number(6);
    r["ext_factor"] = number(7);
    r["attn_factor"] = number(8);
    r["sections"] = std::vector<int32_t>(params.begin() + 11, params.begin() + 15);
    r["freq_factors"] = to_array(node.op->factors, {static_cast<py::ssize_t>(node.op->factors.size())});
    return r;
}

// RoPE of vectors [n, head_dim] by the operator in the model's own graph, as the queries of `layer` get it.
array<float> apply_rope(Context & self, int layer, const array<float> & vectors, const array<int32_t> & positions) {
    const std::vector<float> x = to_vector(vectors);
    const std::vector<int32_t> p = to_vector(positions);
    return self.run_with_gil([&](Decoder & d) {
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
std::vector<array<float>> scores(Context & self, int seq) {
    return self.run_with_gil([&](Decoder & d) {
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

// The operations of eviction that a device lacks, in words; without a name: the devices that hold the cache.
std::vector<std::string> missing_operations(Context & self, const std::string & device) {
    ggml_backend_dev_t chosen = device.empty() ? nullptr : ggml_backend_dev_by_name(device.c_str());
    if (!device.empty() && chosen == nullptr) {
        throw triattn::ContextError("there is no device '" + device + "' on this machine");
    }
    return self.run_with_gil([&](Decoder & d) {
        return d.controller() != nullptr ? d.controller()->missing_operations(chosen) : std::vector<std::string>();
    });
}

// The matrix that llama.cpp multiplies pieces of a quantised cache's keys by; None if it does not.
std::optional<array<float>> k_rotation(Context & self) {
    return self.run_with_gil([](Decoder & d) -> std::optional<array<float>> {
        const int n = view_of(d).k_rotation_size();
        return n > 0 ? std::optional(to_array(d.view()->k_rotation(), {n, n})) : std::nullopt;
    });
}

}  // namespace

void add_inspection(py::module_ & m, py::class_<Context> & context) {
    auto node = py::class_<AttentionNode>(m, "AttentionNode")
                    .def_readonly("layer", &AttentionNode::layer)
                    .def_readonly("owner", &AttentionNode::owner)
                    .def_readonly("sliding", &AttentionNode::sliding)
                    .def_readonly("n_head", &AttentionNode::n_head)
                    .def_readonly("n_head_kv", &AttentionNode::n_head_kv)
                    .def_readonly("head_dim_v", &AttentionNode::head_dim_v)
                    .def_readonly("hadamard", &AttentionNode::hadamard)
                    .def_property_readonly("weights",
                                           [](const AttentionNode & n) {
                                               return to_array(n.weights, {static_cast<py::ssize_t>(n.weights.size())});
                                           })
                    .def_property_readonly("operator", &operator_of);
    add_rope_properties(node);

    context
        .def(
            "kept_positions",
            [](Context & self, int seq, int layer, int kv_head) {
                const auto values =
                    self.run_with_gil([&](Decoder & d) { return d.kept_positions(seq, layer, kv_head); });
                return to_array(values, {static_cast<py::ssize_t>(values.size())});
            },
            py::arg("seq"), py::arg("layer"), py::arg("kv_head"))
        .def(
            "cells",
            [](Context & self, int seq) {
                std::vector<std::pair<uint32_t, int32_t>> result;
                self.run_with_gil([&](Decoder & d) {
                    for (const triattn::KvCell & cell : d.view()->cells(seq)) {
                        result.emplace_back(cell.slot, cell.pos);
                    }
                });
                return result;
            },
            py::arg("seq") = 0)
        .def("cache_rows", &cache_rows, py::arg("seq"), py::arg("layer"), py::arg("value"))
        .def("counters", &counters, py::arg("seq") = 0)
        .def("device_bytes", &device_bytes)
        .def("seconds", &seconds)
        .def_property_readonly("layers",
                               [](Context & self) {
                                   return self.run_with_gil([](Decoder & d) {
                                       std::vector<std::tuple<int, int, int, int>> result;
                                       if (d.view()) {
                                           for (const triattn::KvLayer & l : d.view()->layers()) {
                                               result.emplace_back(l.layer, l.n_head_kv, l.head_dim_k, l.head_dim_v);
                                           }
                                       }
                                       return result;
                                   });
                               })
        .def("attention",
             [](Context & self) {
                 return self.run_with_gil([](Decoder & d) { return triattn::probe_attention(view_of(d)); });
             })
        .def("apply_rope", &apply_rope, py::arg("layer"), py::arg("vectors"), py::arg("positions"))
        .def("scores", &scores, py::arg("seq") = 0)
        .def("missing_operations", &missing_operations, py::arg("device") = std::string())
        .def(
            "record_evictions",
            [](Context & self, bool on) {
                self.run_with_gil([&](Decoder & d) {
                    if (d.controller() != nullptr) {
                        d.controller()->set_recording(on);
                    }
                });
            },
            py::arg("on"))
        .def("take_evictions",
             [](Context & self) {
                 std::vector<std::tuple<int32_t, int64_t, int32_t, int32_t, std::vector<std::vector<array<int32_t>>>>>
                     result;
                 self.run_with_gil([&](Decoder & d) {
                     if (d.controller() == nullptr) {
                         return;
                     }
                     for (const triattn::EvictionRecord & record : d.controller()->take_records()) {
                         std::vector<std::vector<array<int32_t>>> layers;
                         for (const auto & heads : record.evicted) {
                             layers.emplace_back();
                             for (const auto & positions : heads) {
                                 layers.back().push_back(
                                     to_array(positions, {static_cast<py::ssize_t>(positions.size())}));
                             }
                         }
                         result.emplace_back(record.seq, record.position, record.n_before, record.n_after,
                                             std::move(layers));
                     }
                 });
                 return result;
             })
        .def(
            "remove",
            [](Context & self, int seq, const std::vector<int32_t> & positions) {
                self.run_with_gil([&](Decoder & d) { d.remove(seq, positions); });
            },
            py::arg("seq"), py::arg("positions"))
        .def_property_readonly("k_rotation", &k_rotation);
}

}  // namespace pytriattn
