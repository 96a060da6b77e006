// A narrow view of the part of a context's memory that can be evicted: the KV cache of the full-attention layers.
// kv_view.cpp alone includes llama.cpp's private headers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

struct ggml_tensor;
struct llama_context;
struct llama_model;
class  llama_kv_cache;

namespace triattn {

struct KvLayer {
    int il         = 0;         // index in the model
    int n_head_kv  = 0;
    int head_dim_k = 0;
    int head_dim_v = 0;         // 0 if V is a part of K (MLA)
    ggml_tensor * k = nullptr;  // storage [head_dim_k*n_head_kv, n_cells, n_stream]
    ggml_tensor * v = nullptr;  // the same for V (its inner layout differs if v_transposed()); null if V is a part of K
};

struct KvCell {
    uint32_t slot;  // index of the cell in its stream
    int32_t  pos;
};

struct KvBytes {
    size_t k = 0, v = 0;  // allocated, all attention caches together (full and sliding)
    size_t recurrent = 0; // states of recurrent and convolution layers
};

class KvView {
public:
    // Throws UnsupportedModelError if the context has no KV cache or one of a kind that cannot be evicted from.
    explicit KvView(llama_context * ctx);
    ~KvView();

    const std::vector<KvLayer> & layers() const { return layers_; }
    uint32_t n_cells() const;   // allocated, per stream
    uint32_t n_stream() const;
    uint32_t stream_of(int32_t seq) const;
    bool     v_transposed() const { return v_transposed_; }
    bool     uses_cell_positions() const { return uses_cell_positions_; }  // ALiBi: attention depends on the cells' positions
    KvBytes  bytes() const { return bytes_; }

    // The sequence's cells, by ascending position. Throws DecodeError if a cell is shared with another sequence.
    std::vector<KvCell> cells(int32_t seq) const;
    uint32_t n_used(int32_t seq) const;

    // Frees the cells of the sequence at these ascending positions, in this cache alone (not in sliding or recurrent parts).
    void remove(int32_t seq, const std::vector<int32_t> & positions);

    // llama.cpp rotates the keys of a quantised cache by a symmetric orthonormal block matrix: its values [size, size],
    // empty where it does not.
    const std::vector<float> & k_rotation() const { return k_rotation_; }
    int k_rotation_size() const { return k_rotation_size_; }

private:
    llama_kv_cache * kv_ = nullptr;
    std::vector<KvLayer> layers_;
    std::vector<float>   k_rotation_;
    int     k_rotation_size_ = 0;
    bool    v_transposed_    = false;
    bool    uses_cell_positions_ = false;
    KvBytes bytes_;
};

// LongRoPE models have two sets of frequencies, and llama.cpp chooses by the *allocated* size of a context: the number of
// positions beyond which it takes the long ones, 0 for any other model.
uint32_t long_rope_threshold(const llama_model * model);

}  // namespace triattn
