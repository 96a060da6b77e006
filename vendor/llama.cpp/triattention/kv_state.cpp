#include "kv_state.h"

#include "errors.h"
#include "kv_parts.h"

#include "ggml-backend.h"
#include "llama-batch.h"
#include "llama-io.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace triattn {
namespace {

constexpr uint32_t NO_SLOT = UINT32_MAX;

class Writer : public llama_io_write_i {
public:
    void write(const void * src, size_t size) override {
        const auto * data = static_cast<const uint8_t *>(src);
        bytes.insert(bytes.end(), data, data + size);
    }
    void write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        const size_t begin = bytes.size();
        bytes.resize(begin + size);
        ggml_backend_tensor_get(tensor, bytes.data() + begin, offset, size);
    }
    size_t n_bytes() override { return bytes.size(); }

    template <typename T>
    void put(const T & value) {
        write(&value, sizeof value);
    }

    std::vector<uint8_t> bytes;
};

class Reader : public llama_io_read_i {
public:
    explicit Reader(const std::vector<uint8_t> & bytes) : bytes_(bytes) {}
    void read(void * dst, size_t size) override { std::memcpy(dst, next(size), size); }
    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        ggml_backend_tensor_set(tensor, next(size), offset, size);
    }
    size_t n_bytes() override { return done_; }

    template <typename T>
    T get() {
        T value;
        read(&value, sizeof value);
        return value;
    }
    bool at_end() const { return done_ == bytes_.size(); }

private:
    const uint8_t * next(size_t size) {
        if (size > bytes_.size() - done_) {
            throw std::runtime_error("it ends too early");
        }
        const uint8_t * data = bytes_.data() + done_;
        done_ += size;
        return data;
    }

    const std::vector<uint8_t> & bytes_;
    size_t done_ = 0;
};

std::vector<uint32_t> slots_of(const llama_kv_cache & cache, int32_t seq) {
    const llama_kv_cells & cells = cache.get_cells(seq);
    std::vector<uint32_t> slots;
    for (uint32_t i = 0; i < cells.size(); ++i) {
        if (!cells.is_empty(i)) {
            slots.push_back(i);
        }
    }
    return slots;
}

// The cell that the next token would take.
uint32_t next_slot(const llama_kv_cache & cache, const llama_hparams & hparams) {
    llama_batch_allocr allocator(hparams.n_pos_per_embd());
    const auto found = cache.find_slot(allocator.ubatch_reserve(1, 1), /*cont*/ false);
    return found.empty() ? NO_SLOT : found.idxs[0][0];
}

void save_cache(Writer & out, const llama_kv_cache & cache, const llama_hparams & hparams, int32_t seq) {
    const std::vector<uint32_t> slots = slots_of(cache, seq);
    out.put(static_cast<uint32_t>(slots.size()));
    out.write(slots.data(), slots.size() * sizeof(uint32_t));
    out.put(next_slot(cache, hparams));
    cache.state_write(out, /*all sequences*/ -1);  // of one sequence, llama.cpp leaves out what a window has slid past
}

llama_kv_cache::slot_info slot_info_at(uint32_t stream, std::vector<uint32_t> slots) {
    llama_kv_cache::slot_info info;
    info.s0 = info.s1 = stream;
    info.strm = {static_cast<llama_seq_id>(stream)};
    info.idxs = {std::move(slots)};
    return info;
}

// llama.cpp searches for a free cell from a place that only writing and removing move: a token that comes and goes
// brings it there.
void set_search_start(llama_kv_cache & cache, const llama_hparams & hparams, int32_t seq, uint32_t slot) {
    llama_batch_allocr allocator(hparams.n_pos_per_embd());
    llama_ubatch token = allocator.ubatch_reserve(1, 1);
    const llama_pos pos = cache.seq_pos_max(seq) + 1;
    token.seq_id_unq[0] = seq;
    token.pos[0] = pos;
    token.n_seq_id[0] = 1;
    token.seq_id[0] = &seq;
    cache.apply_ubatch(slot_info_at(cache.get_stream(seq), {slot}), token);
    cache.seq_rm(seq, pos, -1);
}

void load_cache(Reader & in, llama_kv_cache & cache, const llama_hparams & hparams, int32_t seq) {
    std::vector<uint32_t> slots(in.get<uint32_t>());
    if (slots.size() > cache.get_size()) {
        throw std::runtime_error("it has more cells than this context");
    }
    in.read(slots.data(), slots.size() * sizeof(uint32_t));
    const uint32_t next = in.get<uint32_t>();
    llama_kv_cache::slot_info_vec_t layout(cache.get_n_stream());
    const uint32_t stream = cache.get_stream(seq);
    if (!slots.empty()) {
        layout[stream] = slot_info_at(stream, std::move(slots));
    }
    cache.state_read_sinfo(in, seq, 0, nullptr, &layout);
    if (next != NO_SLOT && next < cache.get_size() && next_slot(cache, hparams) != next) {
        set_search_start(cache, hparams, seq, next);
    }
}

}  // namespace

std::vector<uint8_t> save_sequence(llama_context * ctx, int32_t seq) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    const llama_hparams & hparams = llama_get_model(ctx)->hparams;
    Writer out;
    save_cache(out, *parts.full, hparams, seq);
    if (parts.sliding != nullptr) {
        save_cache(out, *parts.sliding, hparams, seq);
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->state_write(out, seq);
    }
    return std::move(out.bytes);
}

std::vector<uint8_t> save_place(llama_context * ctx, int32_t seq, int32_t n_seq_max) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    const llama_hparams & hparams = llama_get_model(ctx)->hparams;
    if (n_seq_max > 1 && (parts.sliding != nullptr || parts.recurrent != nullptr)) {
        throw UnsupportedModelError(
            "this model has layers with a sliding window or a recurrent state, which a second reading would change for "
            "good in a context of several sequences; use reread=False or n_seq_max=1");
    }
    Writer out;
    out.put(n_seq_max > 1 ? NO_SLOT : next_slot(*parts.full, hparams));
    if (parts.sliding != nullptr) {
        save_cache(out, *parts.sliding, hparams, seq);
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->state_write(out, seq);
    }
    return std::move(out.bytes);
}

void go_back(llama_context * ctx, int32_t seq, int32_t n, const std::vector<uint8_t> & place) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    const llama_hparams & hparams = llama_get_model(ctx)->hparams;
    Reader in(place);
    const uint32_t next = in.get<uint32_t>();
    if (!parts.full->seq_rm(seq, n, -1)) {
        throw DecodeError("llama.cpp refused to remove positions from the cache");
    }
    if (next != NO_SLOT && next_slot(*parts.full, hparams) != next) {
        set_search_start(*parts.full, hparams, seq, next);
    }
    if (parts.sliding != nullptr) {
        parts.sliding->seq_rm(seq, -1, -1);
        load_cache(in, *parts.sliding, hparams, seq);
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->seq_rm(seq, -1, -1);
        parts.recurrent->state_read(in, seq);
    }
}

void load_sequence(llama_context * ctx, int32_t seq, const std::vector<uint8_t> & bytes) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    const llama_hparams & hparams = llama_get_model(ctx)->hparams;
    llama_memory_seq_rm(llama_get_memory(ctx), seq, -1, -1);
    try {
        Reader in(bytes);
        load_cache(in, *parts.full, hparams, seq);
        if (parts.sliding != nullptr) {
            load_cache(in, *parts.sliding, hparams, seq);
        }
        if (parts.recurrent != nullptr) {
            parts.recurrent->state_read(in, seq);
        }
        if (!in.at_end()) {
            throw std::runtime_error("there is more than this context can take");
        }
    } catch (const std::exception & error) {
        llama_memory_seq_rm(llama_get_memory(ctx), seq, -1, -1);
        throw DecodeError(std::string("the saved state does not fit this context: ") + error.what());
    }
}

}  // namespace triattn
