// A narrow view of the part of a context's memory that can be evicted: the KV cache of the full-attention layers.
// The kv_* files alone include llama.cpp's private headers.
#pragma once

#include "ggml-backend.h"

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

struct ggml_backend_device;
struct ggml_cgraph;
struct ggml_tensor;
struct llama_context;
struct llama_model;
class llama_kv_cache;

namespace triattn {

struct KvLayer {
    int layer = 0;  // index in the model
    int n_head_kv = 0;
    int head_dim_k = 0;
    int head_dim_v = 0;         // 0 if V is a part of K (MLA)
    ggml_tensor * k = nullptr;  // storage [head_dim_k*n_head_kv, n_cells, n_stream]
    ggml_tensor * v = nullptr;  // the same for V (its inner layout differs if v_transposed()); null if V is a part of K
};

struct KvCell {
    uint32_t slot;  // index of the cell in its stream
    int32_t pos;
    int32_t row = 0, column = 0;  // with M-RoPE: those of an image's token, whose tokens share `pos`; of text: `pos`
};

// The order in which cells were filled. Cells of a sequence have it, before and after evictions.
inline bool operator<(const KvCell & a, const KvCell & b) {
    return std::tie(a.pos, a.row, a.column) < std::tie(b.pos, b.row, b.column);
}

// The position of the token that follows these cells, in their order: behind the largest coordinate of an image.
int32_t next_position(const std::vector<KvCell> & cells);

// Tells cells that have been looked at from those that were filled since.
class SeenCells {
public:
    // The first new one; `cells` in their order.
    std::vector<KvCell>::const_iterator first_new(const std::vector<KvCell> & cells) const;
    void take(const std::vector<KvCell> & cells);
    // The sequence was cut back to its first `n` positions.
    void truncate(int32_t n);
    int32_t next_pos() const { return next_pos_; }
    void set_next_pos(int32_t pos);

private:
    int32_t next_pos_ = 0;  // all cells before this position have been seen
    KvCell last_{0, -1};    // of an image that is being read there may be more at the position before
};

// Allocated bytes.
struct KvBytes {
    size_t k = 0, v = 0;                                // layers with full attention, all streams
    size_t sliding_k = 0, sliding_v = 0;                // layers with a sliding window
    size_t recurrent = 0;                               // states of recurrent and convolution layers
    std::map<ggml_backend_device *, size_t> by_device;  // all of the above, by the device that holds it
};

// The devices that will hold the caches of a model's layers, each once.
std::vector<ggml_backend_device *> cache_devices(const llama_model * model);

class KvView {
public:
    // Throws UnsupportedModelError if the context has no KV cache or one of a kind that cannot be evicted from.
    explicit KvView(llama_context * ctx);
    ~KvView();

    const std::vector<KvLayer> & layers() const { return layers_; }  // full attention: those that are evicted from
    const std::vector<KvLayer> & sliding_layers() const { return sliding_layers_; }  // left alone
    uint32_t n_cells() const;                                                        // allocated, per stream
    uint32_t n_stream() const;
    uint32_t stream_of(int32_t seq) const;
    bool v_transposed() const { return v_transposed_; }
    bool has_grid() const { return has_grid_; }    // M-RoPE: tokens of images have a row and a column
    bool has_alibi() const { return has_alibi_; }  // ALiBi: attention depends on the cells' positions
    KvBytes bytes() const { return bytes_; }

    // The sequence's cells, by ascending position. Throws DecodeError if a cell is shared with another sequence.
    std::vector<KvCell> cells(int32_t seq) const;
    // The same without that check: to look only.
    std::vector<KvCell> shared_cells(int32_t seq) const;
    uint32_t n_used(int32_t seq) const;

    // Frees the cells of the sequence at these ascending positions, in this cache alone (not in sliding or recurrent
    // parts).
    void remove(int32_t seq, const std::vector<int32_t> & positions);
    // Frees the marked ones of all cells of the sequence, which are given in their order.
    void remove(int32_t seq, const std::vector<KvCell> & cells, const std::vector<uint8_t> & marks);

    // llama.cpp rotates pieces of the keys of most quantised caches by a symmetric orthonormal matrix: its values
    // [size, size], empty if there is none. Not all layers need use it; see AttentionNode::hadamard.
    const std::vector<float> & k_rotation() const { return k_rotation_; }
    int k_rotation_size() const { return k_rotation_size_; }

    // The same for values; layers that have values of their own all use it.
    const std::vector<float> & v_rotation() const { return v_rotation_; }
    int v_rotation_size() const { return v_rotation_size_; }

    // The graph of one decoding step, built and not run: what the context itself would compute, before it is split for
    // devices. Valid until the context is used.
    ggml_cgraph * build_graph() const;

    // See the function below.
    void observe(ggml_backend_sched_eval_callback callback, void * data) const;

private:
    llama_context * ctx_ = nullptr;
    llama_kv_cache * kv_ = nullptr;
    std::vector<KvLayer> layers_, sliding_layers_;
    std::vector<float> k_rotation_, v_rotation_;
    int k_rotation_size_ = 0, v_rotation_size_ = 0;
    bool v_transposed_ = false;
    bool has_alibi_ = false;
    bool has_grid_ = false;
    KvBytes bytes_;
};

// From the next step on the context asks `callback` about every node; null: none any more.
void observe(llama_context * ctx, ggml_backend_sched_eval_callback callback, void * data);

// A table of positions in place of RoPE (GPT-2): llama.cpp ends the process at a position beyond it.
bool has_learned_positions(const llama_model * model);

// A hybrid model's file in which no layer is recurrent: llama.cpp ends the process when it makes the states of none.
bool lacks_recurrent_layers(const llama_model * model);

bool has_long_rope(const llama_model * model);

// LongRoPE models have two sets of frequencies, and llama.cpp chooses the long ones where a context's *allocated* size
// is beyond the model's original context: that number of positions, 0 for any other model.
uint32_t long_rope_threshold(const llama_model * model);

// Makes all contexts of a LongRoPE model take the long frequencies, whatever their size: for texts beyond the original
// context in a cache that is smaller.
void use_long_rope(llama_model * model);

}  // namespace triattn
