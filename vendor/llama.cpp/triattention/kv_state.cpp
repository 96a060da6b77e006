#include "kv_state.h"

#include "errors.h"
#include "kv_parts.h"

#include "ggml-backend.h"
#include "llama-io.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

namespace triattn {
namespace {

constexpr uint32_t SHARED_START = UINT32_MAX;  // not put back: other sequences have moved it

// Where llama.cpp begins to search for free cells, one place for each stream: it decides in which cells the next tokens
// lie, and so how sums over them are rounded. llama.cpp has no function for it. An explicit instantiation may name a
// private member; it fails to compile if the member goes.
using SearchStarts = std::vector<uint32_t> llama_kv_cache::*;
SearchStarts search_starts();

template <SearchStarts member>
struct SearchStartsOf {
    friend SearchStarts search_starts() { return member; }
};
template struct SearchStartsOf<&llama_kv_cache::v_heads>;

uint32_t & search_start(llama_kv_cache & cache, int32_t seq) { return (cache.*search_starts())[cache.get_stream(seq)]; }

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
    void read(void * dst, size_t size) override {
        const uint8_t * data = next(size);
        if (size > 0) {  // an empty vector has no address
            std::memcpy(dst, data, size);
        }
    }
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

void save_cache(Writer & out, llama_kv_cache & cache, int32_t seq) {
    const std::vector<uint32_t> slots = slots_of(cache, seq);
    out.put(static_cast<uint32_t>(slots.size()));
    out.write(slots.data(), slots.size() * sizeof(uint32_t));
    out.put(search_start(cache, seq));
    cache.state_write(out, /*all sequences*/ -1);  // of one sequence, llama.cpp leaves out what a window has slid past
}

llama_kv_cache::slot_info slot_info_at(uint32_t stream, std::vector<uint32_t> slots) {
    llama_kv_cache::slot_info info;
    info.s0 = info.s1 = stream;
    info.strm = {static_cast<llama_seq_id>(stream)};
    info.idxs = {std::move(slots)};
    return info;
}

// Whether tokens of an image share a position.
bool may_share_positions(const llama_context * ctx) { return llama_get_model(ctx)->hparams.n_pos_per_embd() > 1; }

// The cells get positions below `n_positions`. What the bytes say is checked where llama.cpp does not, or would end the
// process: they may come from a file.
void load_cache(Reader & in, llama_kv_cache & cache, int32_t seq, int64_t n_positions, bool may_share) {
    const auto n_slots = in.get<uint32_t>();
    if (n_slots > cache.get_size()) {
        throw std::runtime_error("it has more cells than this context");
    }
    std::vector<uint32_t> slots(n_slots);
    in.read(slots.data(), slots.size() * sizeof(uint32_t));
    if (std::adjacent_find(slots.begin(), slots.end(), std::greater_equal<>()) != slots.end()) {
        throw std::runtime_error("its cells are not in order");
    }
    if (!slots.empty() && slots.back() >= cache.get_size()) {
        throw std::runtime_error("it names a cell that this context does not have");
    }
    const uint32_t start = in.get<uint32_t>();
    if (start > cache.get_size()) {
        throw std::runtime_error("it names a cell that this context does not have");
    }
    llama_kv_cache::slot_info_vec_t layout(cache.get_n_stream());
    const uint32_t stream = cache.get_stream(seq);
    if (!slots.empty()) {
        layout[stream] = slot_info_at(stream, slots);
    }
    cache.state_read_sinfo(in, seq, 0, nullptr, &layout);
    const llama_kv_cells & cells = cache.get_cells(seq);
    std::vector<bool> taken(static_cast<size_t>(n_positions));
    for (const uint32_t slot : slots) {
        const llama_pos position = cells.is_empty(slot) ? -1 : cells.pos_get(slot);
        const auto is_one = [&](llama_pos coordinate) { return coordinate >= 0 && coordinate < n_positions; };
        const llama_kv_cell_ext grid = position < 0 ? llama_kv_cell_ext{} : cells.ext_get(slot);
        const bool is_apart = is_one(position) && !taken[static_cast<size_t>(position)];
        const bool is_in_image = may_share && is_one(position) && is_one(grid.x) && is_one(grid.y);
        if (may_share ? !is_in_image : !is_apart) {
            throw std::runtime_error("its cells have wrong positions");
        }
        taken[static_cast<size_t>(position)] = true;
    }
    search_start(cache, seq) = start;
}

}  // namespace

std::vector<uint8_t> save_sequence(llama_context * ctx, int32_t seq) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    Writer out;
    save_cache(out, *parts.full, seq);
    if (parts.sliding != nullptr) {
        save_cache(out, *parts.sliding, seq);
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->state_write(out, seq);
    }
    return std::move(out.bytes);
}

void check_second_reading(bool has_windows_or_states, int32_t n_seq_max) {
    if (n_seq_max > 1 && has_windows_or_states) {
        throw UnsupportedModelError(
            "this model has layers with a sliding window or a recurrent state, which a second reading would change for "
            "good in a context of several sequences; use reread=False or n_seq_max=1");
    }
}

std::vector<uint8_t> save_place(llama_context * ctx, int32_t seq, int32_t n_seq_max) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    check_second_reading(parts.sliding != nullptr || parts.recurrent != nullptr, n_seq_max);
    Writer out;
    out.put(n_seq_max > 1 ? SHARED_START : search_start(*parts.full, seq));
    if (parts.sliding != nullptr) {
        save_cache(out, *parts.sliding, seq);
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->state_write(out, seq);
    }
    return std::move(out.bytes);
}

void go_back(llama_context * ctx, int32_t seq, int32_t n, const std::vector<uint8_t> & place) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    Reader in(place);
    const uint32_t start = in.get<uint32_t>();
    if (!parts.full->seq_rm(seq, n, -1)) {
        throw DecodeError("llama.cpp refused to remove positions from the cache");
    }
    if (start != SHARED_START) {
        search_start(*parts.full, seq) = start;
    }
    if (parts.sliding != nullptr) {
        parts.sliding->seq_rm(seq, -1, -1);
        load_cache(in, *parts.sliding, seq, n, may_share_positions(ctx));
    }
    if (parts.recurrent != nullptr) {
        parts.recurrent->seq_rm(seq, -1, -1);
        parts.recurrent->state_read(in, seq);
    }
}

void load_sequence(llama_context * ctx, int32_t seq, const std::vector<uint8_t> & bytes, int64_t n_positions) {
    llama_synchronize(ctx);
    const KvParts parts = find_parts(ctx);
    llama_memory_seq_rm(llama_get_memory(ctx), seq, -1, -1);
    try {
        Reader in(bytes);
        load_cache(in, *parts.full, seq, n_positions, may_share_positions(ctx));
        if (parts.sliding != nullptr) {
            load_cache(in, *parts.sliding, seq, n_positions, may_share_positions(ctx));
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
