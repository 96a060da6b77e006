// What a context's methods return, as Python classes with read-only attributes.
#include "records.h"

#include "repr.h"

namespace pytriattn {
namespace {

using triattn::EvictionRecord;
using triattn::KvCell;
using triattn::KvLayer;
using triattn::SavedSequence;

py::bytes to_bytes(const std::vector<uint8_t> & values) {
    return {reinterpret_cast<const char *>(values.data()), values.size()};
}

std::vector<uint8_t> from_bytes(const py::bytes & bytes) {
    const std::string_view view = bytes;
    return {view.begin(), view.end()};
}

void add_cache_records(py::module_ & m) {
    auto layer = py::class_<KvLayer>(m, "KvLayer", "A layer with full attention and a cache of its own.")
                     .def_readonly("layer", &KvLayer::layer, "Index in the model.")
                     .def_readonly("n_head_kv", &KvLayer::n_head_kv, "KV heads.")
                     .def_readonly("head_dim_k", &KvLayer::head_dim_k, "Dimensions of a key.")
                     .def_readonly("head_dim_v", &KvLayer::head_dim_v,
                                   "Dimensions of a value; 0 if values are a part of the keys (latent attention).");
    add_repr(layer, {"layer", "n_head_kv", "head_dim_k", "head_dim_v"});

    auto cell = py::class_<KvCell>(m, "KvCell", "A cell of the cache that holds a key of a sequence.")
                    .def_readonly("slot", &KvCell::slot, "Index of the cell in its stream.")
                    .def_readonly("position", &KvCell::pos, "Position that llama.cpp gives the cell.");
    add_repr(cell, {"slot", "position"});

    auto counters =
        py::class_<ContextCounters>(m, "ContextCounters", "What a context has done, and what its caches take.")
            .def_readonly("n_tokens", &ContextCounters::n_tokens, "Tokens that the sequence has read.")
            .def_readonly("n_decoded", &ContextCounters::n_decoded, "Tokens decoded since the context was made.")
            .def_readonly("cells_allocated", &ContextCounters::cells_allocated,
                          "Cells of layers with full attention, of all sequences.")
            .def_readonly("cells_used", &ContextCounters::cells_used, "Cells that the sequence uses of them.")
            .def_readonly("k_bytes", &ContextCounters::k_bytes, "Allocated bytes of keys.")
            .def_readonly("v_bytes", &ContextCounters::v_bytes, "Allocated bytes of values.")
            .def_readonly("sliding_bytes", &ContextCounters::sliding_bytes,
                          "Bytes of keys and values in layers with a sliding window, counted in the two above as well.")
            .def_readonly("recurrent_bytes", &ContextCounters::recurrent_bytes,
                          "Bytes of the states of recurrent layers.")
            .def_readonly("n_evictions", &ContextCounters::n_evictions, "How often the cache was pruned.")
            .def_readonly("n_tokens_evicted", &ContextCounters::n_tokens_evicted,
                          "Keys evicted per head, summed over evictions.")
            .def_readonly("n_drafted", &ContextCounters::n_drafted, "Tokens computed on the guess that they come next.")
            .def_readonly("n_accepted", &ContextCounters::n_accepted, "Of these, tokens that did.");
    add_repr(counters, {"n_tokens", "n_decoded", "cells_allocated", "cells_used", "k_bytes", "v_bytes", "sliding_bytes",
                        "recurrent_bytes", "n_evictions", "n_tokens_evicted", "n_drafted", "n_accepted"});

    auto seconds = py::class_<ContextSeconds>(m, "ContextSeconds", "Where a context's time went, in seconds.")
                       .def_readonly("decoding", &ContextSeconds::decoding, "llama.cpp's decoding.")
                       .def_readonly("scoring", &ContextSeconds::scoring, "Scoring of keys.")
                       .def_readonly("selection", &ContextSeconds::selection, "Choice of keys, a chooser's included.")
                       .def_readonly("compaction", &ContextSeconds::compaction, "Moving of keys and values.");
    add_repr(seconds, {"decoding", "scoring", "selection", "compaction"});
}

void add_eviction_record(py::module_ & m) {
    auto record =
        py::class_<EvictionRecord>(m, "EvictionRecord", "What one eviction took away.")
            .def_readonly("seq", &EvictionRecord::seq, "The sequence.")
            .def_readonly("position", &EvictionRecord::position, "Position of the next token.")
            .def_readonly("n_before", &EvictionRecord::n_before, "Keys per head before.")
            .def_readonly("n_after", &EvictionRecord::n_after, "Keys per head after.")
            .def_property_readonly(
                "evicted",
                [](const EvictionRecord & self) {
                    std::vector<std::vector<array<int32_t>>> layers;
                    for (const auto & heads : self.evicted) {
                        layers.emplace_back();
                        for (const auto & positions : heads) {
                            layers.back().push_back(to_array(positions, {static_cast<py::ssize_t>(positions.size())}));
                        }
                    }
                    return layers;
                },
                "Token positions that each head has lost, ascending: for each of Context.layers and each KV head an "
                "array, int32.");
    add_repr(record, {"seq", "position", "n_before", "n_after"});
}

void add_probability_records(py::module_ & m) {
    auto single = py::class_<TokenLogprob>(m, "TokenLogprob", "A token and its log-probability.")
                      .def_readonly("token", &TokenLogprob::token, "The token's id.")
                      .def_readonly("logprob", &TokenLogprob::logprob, "ln p(token).");
    add_repr(single, {"token", "logprob"});

    auto logprobs = py::class_<TokenLogprobs>(m, "TokenLogprobs", "Log-probabilities at one place of a text.")
                        .def_readonly("logprob", &TokenLogprobs::logprob, "ln p of the token that was asked for.")
                        .def_readonly("top", &TokenLogprobs::top, "The likeliest tokens, best first.");
    add_repr(logprobs, {"logprob", "top"});

    auto scores = py::class_<TokenScores>(m, "TokenScores", "How well each of some tokens was predicted.")
                      .def_property_readonly(
                          "logprobs",
                          [](const TokenScores & self) {
                              return to_array(self.logprobs, {static_cast<py::ssize_t>(self.logprobs.size())});
                          },
                          "ln p(token | those before), float32 [n_tokens].")
                      .def_property_readonly(
                          "is_best",
                          [](const TokenScores & self) {
                              return to_bool_array(self.is_best, {static_cast<py::ssize_t>(self.is_best.size())});
                          },
                          "Whether no other token was likelier, bool [n_tokens].");
    add_repr(scores, {"logprobs", "is_best"});
}

void add_saved_sequence(py::module_ & m) {
    auto saved =
        py::class_<SavedSequence>(m, "SavedSequence",
                                  "A sequence, to be put back into a context of the same model and settings.")
            .def(
                py::init([](const py::bytes & cells, const py::bytes & origins, int64_t n_tokens, int32_t n_protected) {
                    return SavedSequence{from_bytes(cells), from_bytes(origins), n_tokens, n_protected};
                }),
                py::kw_only(), py::arg("cells"), py::arg("origins"), py::arg("n_tokens"), py::arg("n_protected"))
            .def_property_readonly(
                "cells", [](const SavedSequence & self) { return to_bytes(self.cells); },
                "The cells of the cache, and recurrent states.")
            .def_property_readonly(
                "origins", [](const SavedSequence & self) { return to_bytes(self.origins); },
                "Where the keys of each head come from, and how often there was an eviction; empty without a budget.")
            .def_readonly("n_tokens", &SavedSequence::n_tokens, "Tokens read so far.")
            .def_readonly("n_protected", &SavedSequence::n_protected, "First positions that are never evicted.");
    add_repr(saved, {"n_tokens", "n_protected"});
}

}  // namespace

std::string describe_attributes(const py::object & object, const std::vector<std::string> & names) {
    std::string text;
    for (const std::string & name : names) {
        text += (text.empty() ? "" : ", ") + name + "=" + std::string(py::repr(object.attr(name.c_str())));
    }
    return std::string(py::str(py::type::of(object).attr("__name__"))) + "(" + text + ")";
}

void add_records(py::module_ & m) {
    add_cache_records(m);
    add_eviction_record(m);
    add_probability_records(m);
    add_saved_sequence(m);
}

}  // namespace pytriattn
