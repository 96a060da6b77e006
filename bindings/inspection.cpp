// What a context holds and has done, for statistics and research.
#include "chooser.h"
#include "context.h"
#include "records.h"
#include "repr.h"
#include "rope_properties.h"

#include "attention_probe.h"

#include <cstring>
#include <map>
#include <optional>

namespace pytriattn {
namespace {

using triattn::AttentionNode;
using triattn::Decoder;

ContextCounters counters(Context & self, int seq) {
    return self.run_with_gil([&](Decoder & d) {
        ContextCounters r;
        r.n_tokens = d.n_tokens(seq);
        r.n_decoded = d.counters().n_decoded;
        r.n_drafted = d.counters().n_drafted;
        r.n_accepted = d.counters().n_accepted;
        if (d.view() != nullptr) {
            r.cells_allocated = static_cast<int64_t>(d.view()->n_cells()) * d.view()->n_stream();
            r.cells_used = static_cast<int64_t>(d.view()->n_used(seq)) - d.n_ahead(seq);
            const triattn::KvBytes bytes = d.view()->bytes();
            r.k_bytes = static_cast<int64_t>(bytes.k + bytes.sliding_k);
            r.v_bytes = static_cast<int64_t>(bytes.v + bytes.sliding_v);
            r.sliding_bytes = static_cast<int64_t>(bytes.sliding_k + bytes.sliding_v);
            r.recurrent_bytes = static_cast<int64_t>(bytes.recurrent);
        }
        if (d.controller() != nullptr) {
            r.n_evictions = d.controller()->counters().n_evictions;
            r.n_tokens_evicted = d.controller()->counters().n_tokens_evicted;
        }
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

ContextSeconds seconds(Context & self) {
    return self.run_with_gil([](Decoder & d) {
        const triattn::EvictionCounters e =
            d.controller() != nullptr ? d.controller()->counters() : triattn::EvictionCounters();
        return ContextSeconds{d.counters().decoding_s, e.scoring_s, e.selection_s, e.compaction_s};
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

array<int32_t> kept_positions(Context & self, int seq, int layer, int kv_head) {
    const auto values = self.run_with_gil([&](Decoder & d) { return d.kept_positions(seq, layer, kv_head); });
    return to_array(values, {static_cast<py::ssize_t>(values.size())});
}

std::vector<triattn::KvLayer> layers(Context & self) {
    return self.run_with_gil(
        [](Decoder & d) { return d.view() != nullptr ? d.view()->layers() : std::vector<triattn::KvLayer>(); });
}

void record_evictions(Context & self, bool on) {
    self.run_with_gil([&](Decoder & d) {
        if (d.controller() != nullptr) {
            d.controller()->set_recording(on);
        }
    });
}

std::vector<triattn::EvictionRecord> take_evictions(Context & self) {
    return self.run_with_gil([](Decoder & d) {
        return d.controller() != nullptr ? d.controller()->take_records() : std::vector<triattn::EvictionRecord>();
    });
}

void add_attention_node(py::module_ & m) {
    auto node =
        py::class_<AttentionNode>(m, "AttentionNode", "One attention operation of the model, as its graph has it.")
            .def_readonly("layer", &AttentionNode::layer, "Whose queries these are.")
            .def_readonly("owner", &AttentionNode::owner,
                          "Whose cached keys they meet: another layer's if it has none of its own.")
            .def_readonly("sliding", &AttentionNode::sliding, "Whether attention has a sliding window.")
            .def_readonly("n_head", &AttentionNode::n_head, "Query heads.")
            .def_readonly("n_head_kv", &AttentionNode::n_head_kv, "KV heads.")
            .def_readonly("head_dim_v", &AttentionNode::head_dim_v,
                          "Dimensions of a value; 0 if values are a part of the keys (latent attention).")
            .def_readonly("hadamard", &AttentionNode::hadamard,
                          "Whether the cached keys are multiplied by llama.cpp's Hadamard matrix.")
            .def_property_readonly(
                "weights",
                [](const AttentionNode & n) {
                    return to_array(n.weights, {static_cast<py::ssize_t>(n.weights.size())});
                },
                "What each dimension of the queries is multiplied by after RoPE, float32 [head_dim]; empty: nothing.")
            .def_property_readonly("operator", &operator_of,
                                   "The parameters of RoPE as ggml names them; None for a layer without RoPE.");
    add_rope_properties(node);
    add_repr(node, {"layer", "owner", "sliding", "n_head", "n_head_kv", "hadamard"});
}

}  // namespace

const triattn::KvView & view_of(const Decoder & decoder) {
    if (decoder.view() == nullptr) {
        throw triattn::UnsupportedModelError("this model keeps no KV cache of a kind that can be looked into");
    }
    return *decoder.view();
}

void add_attention(py::module_ & m) { add_attention_node(m); }

void add_inspection(py::class_<Context> & context) {
    context.def_property_readonly("layers", &layers, "The layers that can be evicted from, in the model's order.")
        .def("kept_positions", &kept_positions, py::arg("seq"), py::arg("layer"), py::arg("kv_head"),
             "Positions of the tokens that a head keeps, ascending, int32.")
        .def("counters", &counters, py::arg("seq") = 0, "What the context has done, and what its caches take.")
        .def("seconds", &seconds, "Where the context's time went.")
        .def("device_bytes", &device_bytes, "Bytes of the caches by the name of the device that holds them.")
        .def(
            "attention",
            [](Context & self) {
                return self.run_with_gil([](Decoder & d) { return triattn::probe_attention(view_of(d)); });
            },
            "The model's attention operations, in the order of computation.")
        .def("record_evictions", &record_evictions, py::arg("on"), "Whether evictions are noted for take_evictions().")
        .def("take_evictions", &take_evictions, "The evictions since the last call.")
        .def(
            "eviction_view", [](const py::object & self, int seq) { return std::make_shared<SharedView>(self, seq); },
            py::arg("seq") = 0,
            "What a chooser would see of a sequence's cache now. Without a budget nothing is protected, and n_keep is "
            "n_keys.");
}

}  // namespace pytriattn
