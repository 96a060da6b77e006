#include "kv_view.h"

#include "errors.h"
#include "hadamard.h"
#include "kv_parts.h"
#include "mode.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "llama-batch.h"
#include "llama-graph.h"
#include "llama.h"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

namespace triattn {

// What a context builds its graphs from is private to it, but an explicit instantiation may name it.
using GraphParams = llm_graph_params (llama_context::*)(llm_graph_result *, const llama_ubatch &,
                                                        const llama_memory_context_i *, llm_graph_type) const;
GraphParams graph_params_member();
template <GraphParams member>
struct PrivateMember {
    friend GraphParams graph_params_member() { return member; }
};
template struct PrivateMember<&llama_context::graph_params>;

namespace {

ggml_context_ptr scratch_context(size_t n_tensors) {
    ggml_context_ptr ctx(ggml_init({n_tensors * ggml_tensor_overhead(), nullptr, /*no_alloc*/ true}));
    if (!ctx) {
        throw Error("out of memory");
    }
    return ctx;
}

llama_kv_cache::slot_info first_stream() {
    llama_kv_cache::slot_info info;
    info.s0 = 0;
    info.s1 = 0;
    info.strm = {0};
    info.idxs = {{0}};
    return info;
}

ggml_backend_dev_t device_of(ggml_backend_buffer_type_t type) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
    return device != nullptr ? device
                             : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);  // plain host memory names none
}

void add_bytes(const ggml_tensor * tensor, size_t & sum, KvBytes & bytes) {
    sum += ggml_nbytes(tensor);
    bytes.by_device[device_of(ggml_backend_buffer_get_type(tensor->buffer))] += ggml_nbytes(tensor);
}

// The layers of a cache. Multi-head latent attention (MLA) has no V of its own: it is a part of K. Layers from
// `n_layer` on predict more than one token at once (MTP): some models' caches have cells for them, but decoding does
// not use them. Layers without attention (Nemotron's pruned ones) have cells of no width.
std::vector<KvLayer> read_layers(const llama_kv_cache & cache, uint32_t n_layer, bool has_v, size_t & k_bytes,
                                 size_t & v_bytes, KvBytes & bytes, bool & v_transposed) {
    const auto slot_info = first_stream();
    std::vector<KvLayer> layers;
    for (uint32_t id : cache.get_layer_ids()) {
        const ggml_context_ptr scratch = scratch_context(2);
        KvLayer layer;
        layer.layer = static_cast<int>(id);
        layer.k = cache.get_k_storage(layer.layer);
        add_bytes(layer.k, k_bytes, bytes);
        const ggml_tensor * k = cache.get_k(scratch.get(), layer.layer, cache.get_size(), slot_info);
        layer.head_dim_k = static_cast<int>(k->ne[0]);
        layer.n_head_kv = static_cast<int>(k->ne[1]);
        if (has_v) {
            const ggml_tensor * v = cache.get_v(scratch.get(), layer.layer, cache.get_size(), slot_info);
            layer.v = v->view_src;
            add_bytes(layer.v, v_bytes, bytes);
            if (layer.n_head_kv > 0) {
                v_transposed = v->nb[1] > v->nb[2];
                layer.head_dim_v = static_cast<int>(v_transposed ? v->ne[2] : v->ne[0]);
            }
        }
        if (id < n_layer && layer.n_head_kv > 0) {
            layers.push_back(layer);
        }
    }
    std::sort(layers.begin(), layers.end(), [](const KvLayer & a, const KvLayer & b) { return a.layer < b.layer; });
    return layers;
}

// The matrix [size, size] that a cache multiplies pieces of its rows by, and its size; empty and 0 if there is none.
using BuildRotation = ggml_tensor * (llama_kv_cache::*)(ggml_context *) const;
using SetRotation = void (llama_kv_cache::*)(ggml_tensor *) const;
std::pair<std::vector<float>, int> read_rotation(const llama_kv_cache & cache, BuildRotation build, SetRotation set) {
    const ggml_context_ptr scratch = scratch_context(2);
    ggml_tensor * rotation = (cache.*build)(scratch.get());
    if (rotation == nullptr) {
        return {};
    }
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(
        scratch.get(), ggml_backend_dev_buffer_type(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU))));
    if (!buffer) {
        throw Error("out of memory");
    }
    (cache.*set)(rotation);
    std::vector<float> values(static_cast<size_t>(ggml_nelements(rotation)));
    ggml_backend_tensor_get(rotation, values.data(), 0, ggml_nbytes(rotation));
    if (!is_hadamard(values, static_cast<int>(rotation->ne[0]))) {
        throw UnsupportedModelError("this quantised cache is rotated by a matrix that is no Hadamard matrix; use "
                                    "type_k='f16' and type_v='f16'");
    }
    return {std::move(values), static_cast<int>(rotation->ne[0])};
}

}  // namespace

std::vector<ggml_backend_dev_t> cache_devices(const llama_model * model) {
    std::vector<ggml_backend_dev_t> devices;
    for (uint32_t layer = 0; layer < model->hparams.n_layer(); ++layer) {
        ggml_backend_dev_t device = model->dev_layer(static_cast<int>(layer));
        if (std::find(devices.begin(), devices.end(), device) == devices.end()) {
            devices.push_back(device);
        }
    }
    return devices;
}

KvView::KvView(llama_context * ctx) : ctx_(ctx) {
    const KvParts parts = find_parts(ctx);
    kv_ = parts.full;

    const llama_hparams & hparams = llama_get_model(ctx)->hparams;
    const bool has_v = !hparams.is_mla();
    has_alibi_ = hparams.use_alibi;
    has_grid_ = hparams.n_pos_per_embd() > 1;
    // a model with a router layer counts it among the MTP layers, but decoding uses it
    const uint32_t n_layer = hparams.router_layer < 0 ? hparams.n_layer() : hparams.n_layer_all;
    layers_ = read_layers(*kv_, n_layer, has_v, bytes_.k, bytes_.v, bytes_, v_transposed_);
    if (parts.sliding != nullptr) {
        bool transposed = false;
        sliding_layers_ =
            read_layers(*parts.sliding, n_layer, has_v, bytes_.sliding_k, bytes_.sliding_v, bytes_, transposed);
    }
    if (parts.recurrent != nullptr) {
        for (const auto & [type, n] : parts.recurrent->memory_breakdown()) {
            bytes_.recurrent += n;
            bytes_.by_device[device_of(type)] += n;
        }
    }
    if (layers_.empty()) {
        throw UnsupportedModelError(NOTHING_TO_EVICT);
    }
    std::tie(k_rotation_, k_rotation_size_) =
        read_rotation(*kv_, &llama_kv_cache::build_input_k_rot, &llama_kv_cache::set_input_k_rot);
    std::tie(v_rotation_, v_rotation_size_) =
        read_rotation(*kv_, &llama_kv_cache::build_input_v_rot, &llama_kv_cache::set_input_v_rot);
}

KvView::~KvView() = default;

int32_t next_position(const std::vector<KvCell> & cells) {
    int32_t last = -1;
    for (const KvCell & cell : cells) {
        last = std::max({last, cell.pos, cell.row, cell.column});
    }
    return std::min(last, std::numeric_limits<int32_t>::max() - 1) + 1;
}

std::vector<KvCell>::const_iterator SeenCells::first_new(const std::vector<KvCell> & cells) const {
    return std::find_if(cells.begin(), cells.end(), [this](const KvCell & cell) {
        return cell.pos >= next_pos_ || (cell.pos == last_.pos && last_ < cell);
    });
}

void SeenCells::take(const std::vector<KvCell> & cells) {
    if (!cells.empty() && cells.back().pos + 1 >= next_pos_) {
        last_ = cells.back();
        next_pos_ = last_.pos + 1;
    }
}

void SeenCells::truncate(int32_t n) {
    if (n < next_pos_) {
        set_next_pos(n);
    }
}

void SeenCells::set_next_pos(int32_t pos) {
    next_pos_ = pos;
    last_ = {0, -1};
}

uint32_t KvView::n_cells() const { return kv_->get_size(); }
uint32_t KvView::n_stream() const { return kv_->get_n_stream(); }
uint32_t KvView::stream_of(int32_t seq) const { return kv_->get_stream(seq); }

std::vector<KvCell> KvView::shared_cells(int32_t seq) const {
    const llama_kv_cells & all = kv_->get_cells(seq);
    std::vector<KvCell> result;
    for (uint32_t i = 0; i < all.size(); ++i) {
        if (!all.is_empty(i) && all.seq_has(i, seq)) {
            const llama_kv_cell_ext & grid = all.ext_get(i);
            result.push_back({i, all.pos_get(i), has_grid_ ? grid.y : 0, has_grid_ ? grid.x : 0});
        }
    }
    std::sort(result.begin(), result.end());
    return result;
}

std::vector<KvCell> KvView::cells(int32_t seq) const {
    const llama_kv_cells & all = kv_->get_cells(seq);
    std::vector<KvCell> result = shared_cells(seq);
    for (const KvCell & cell : result) {
        if (all.seq_count(cell.slot) > 1) {
            throw DecodeError("sequence " + std::to_string(seq) +
                              " shares cache cells with another one; evicting them for one "
                              "would change the other");
        }
    }
    return result;
}

uint32_t KvView::n_used(int32_t seq) const {
    const llama_kv_cells & all = kv_->get_cells(seq);
    if (kv_->get_n_seq_max() == 1 || kv_->get_n_stream() > 1) {
        return all.get_used();
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < all.size(); ++i) {
        n += !all.is_empty(i) && all.seq_has(i, seq) ? 1 : 0;
    }
    return n;
}

void KvView::remove(int32_t seq, const std::vector<KvCell> & cells, const std::vector<uint8_t> & marks) {
    std::vector<int32_t> positions;
    for (size_t begin = 0, end = 0; begin < cells.size(); begin = end) {
        size_t n_marked = 0;
        for (end = begin; end < cells.size() && cells[end].pos == cells[begin].pos; ++end) {
            n_marked += marks[end];
        }
        if (n_marked == end - begin) {
            positions.push_back(cells[begin].pos);
            continue;
        }
        // llama.cpp frees by position, which the tokens of an image share
        auto & all = const_cast<llama_kv_cells &>(kv_->get_cells(seq));
        for (size_t i = begin; n_marked > 0 && i < end; ++i) {
            if (marks[i] != 0) {
                all.seq_rm(cells[i].slot, seq);
            }
        }
    }
    remove(seq, positions);
}

void KvView::remove(int32_t seq, const std::vector<int32_t> & positions) {
    for (size_t i = 0; i < positions.size();) {
        size_t j = i + 1;
        while (j < positions.size() && positions[j] == positions[j - 1] + 1) {
            ++j;
        }
        if (!kv_->seq_rm(seq, positions[i], positions[j - 1] + 1)) {
            throw DecodeError("llama.cpp refused to remove positions from the cache");
        }
        i = j;
    }
}

ggml_cgraph * KvView::build_graph() const {
    const uint32_t n_seq = kv_->get_n_seq_max();
    const llama_memory_context_ptr memory = llama_get_memory(ctx_)->init_full();
    // makes the context let go of earlier graphs; this one is split for devices, with copies where one device reads
    // from another
    if (!memory || ctx_->graph_reserve(n_seq, n_seq, n_seq, memory.get(), /*split_only*/ true) == nullptr) {
        throw Error("llama.cpp could not build a graph for this context");
    }
    // the same again, in one piece
    ggml_backend_sched_reset(ctx_->get_sched());
    llm_graph_result * result = ctx_->get_gf_res_reserve();
    result->reset();
    llama_batch_allocr allocator(llama_get_model(ctx_)->hparams.n_pos_per_embd());
    llama_ubatch step = allocator.ubatch_reserve(1, n_seq);
    for (uint32_t i = 0; i < n_seq; ++i) {
        step.n_seq_id[i] = 1;
        step.seq_id[i] = &step.seq_id_unq[i];
    }
    llm_graph_params params = (ctx_->*graph_params_member())(result, step, memory.get(), LLM_GRAPH_TYPE_DEFAULT);
    params.n_outputs = n_seq;
    ggml_cgraph * graph = llama_get_model(ctx_)->build_graph(params);
    ggml_backend_sched_reset(ctx_->get_sched());  // building has told it of the devices of some nodes
    return graph;
}

void KvView::observe(ggml_backend_sched_eval_callback callback, void * data) const {
    triattn::observe(ctx_, callback, data);
}

void observe(llama_context * ctx, ggml_backend_sched_eval_callback callback, void * data) {
    // a graph that is used again keeps the scheduler's callback, one that is built anew takes the context's
    auto & params = const_cast<llama_cparams &>(ctx->get_cparams());
    params.cb_eval = callback;
    params.cb_eval_user_data = data;
    ggml_backend_sched_set_eval_callback(ctx->get_sched(), callback, data);
}

bool has_learned_positions(const llama_model * model) { return model->pos_embd != nullptr; }

bool lacks_recurrent_layers(const llama_model * model) {
    if (!llama_model_is_hybrid(model)) {
        return false;
    }
    for (uint32_t layer = 0; layer < model->hparams.n_layer(); ++layer) {
        if (model->hparams.is_recr(layer)) {
            return false;
        }
    }
    return true;
}

bool has_long_rope(const llama_model * model) {
    return std::any_of(model->layers.begin(), model->layers.end(),
                       [](const llama_layer & layer) { return layer.rope_long != nullptr; });
}

uint32_t long_rope_threshold(const llama_model * model) {
    return has_long_rope(model) ? model->hparams.n_ctx_orig_yarn : 0;
}

void use_long_rope(llama_model * model) { model->hparams.n_ctx_orig_yarn = 0; }

}  // namespace triattn
