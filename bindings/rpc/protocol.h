// What the relay of link.cpp has to know of ggml's RPC protocol: which commands are answered, and by how many
// bytes. A request is |command: 1 byte|size: 8 bytes|payload|, an answer |size: 8 bytes|payload|.
#pragma once

#include "ggml-rpc.h"

#include <cstdint>
#include <cstring>
#include <vector>

namespace pytriattn::rpc {

static_assert(RPC_PROTO_MAJOR_VERSION == 7 && RPC_PROTO_MINOR_VERSION == 0,
              "compare the commands below with ggml-rpc.cpp");

enum Command : uint8_t {
    ALLOC_BUFFER = 0,
    GET_ALIGNMENT,
    GET_MAX_SIZE,
    BUFFER_GET_BASE,
    FREE_BUFFER,
    BUFFER_CLEAR,
    SET_TENSOR,
    SET_TENSOR_HASH,
    GET_TENSOR,
    COPY_TENSOR,
    GRAPH_COMPUTE,
    GET_DEVICE_MEMORY,
    INIT_TENSOR,
    GET_ALLOC_SIZE,
    HELLO,
    DEVICE_COUNT,
    GRAPH_RECOMPUTE,
    MEMSET_TENSOR,
};

constexpr size_t HEADER = 9, SIZE = 8;
constexpr size_t CAPABILITIES = 24;                // of a transport other than TCP: zeros for none
constexpr size_t HELLO_ANSWER = 4 + CAPABILITIES;  // major, minor, patch, padding

inline uint64_t read_u64(const uint8_t * bytes) {
    uint64_t value = 0;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

inline void append_u64(std::vector<uint8_t> & bytes, uint64_t value) {
    const auto * first = reinterpret_cast<const uint8_t *>(&value);
    bytes.insert(bytes.end(), first, first + sizeof value);
}

inline std::vector<uint8_t> request(Command command, const std::vector<uint8_t> & payload) {
    std::vector<uint8_t> bytes = {command};
    append_u64(bytes, payload.size());
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
}

// An answer with its size in front: these bytes, and then so many zeros.
struct Answer {
    std::vector<uint8_t> bytes;
    uint64_t zeros = 0;
    uint64_t size() const { return bytes.size() + zeros; }
};

inline bool has_answer(uint8_t command) {
    switch (command) {
        case FREE_BUFFER:
        case BUFFER_CLEAR:
        case SET_TENSOR:
        case GRAPH_COMPUTE:
        case INIT_TENSOR:
        case GRAPH_RECOMPUTE:
        case MEMSET_TENSOR:   return false;
        default:              return true;
    }
}

// The answer in place of a server that is gone: something of the right size that ggml can go on with and give back
// later. A tensor's content is zeros, which are valid numbers, indices and token ids. `last`: the last 64-bit word of
// the request, where some commands have a size.
inline Answer substitute_for(uint8_t command, uint64_t last, uint32_t n_devices) {
    constexpr uint64_t ADDRESS = uint64_t{1} << 32, ALIGNMENT = 128, MEMORY = uint64_t{1} << 40;
    Answer answer;
    const auto words = [&](std::initializer_list<uint64_t> values) {
        append_u64(answer.bytes, values.size() * sizeof(uint64_t));
        for (uint64_t value : values) {
            append_u64(answer.bytes, value);
        }
    };
    const auto bytes = [&](std::vector<uint8_t> values) {
        append_u64(answer.bytes, values.size());
        answer.bytes.insert(answer.bytes.end(), values.begin(), values.end());
    };
    switch (command) {
        case HELLO: {
            std::vector<uint8_t> hello(HELLO_ANSWER);
            hello[0] = RPC_PROTO_MAJOR_VERSION;
            hello[1] = RPC_PROTO_MINOR_VERSION;
            hello[2] = RPC_PROTO_PATCH_VERSION;
            bytes(hello);
            break;
        }
        case DEVICE_COUNT: {
            std::vector<uint8_t> count(sizeof n_devices);
            std::memcpy(count.data(), &n_devices, sizeof n_devices);
            bytes(count);
            break;
        }
        case GET_TENSOR:
            append_u64(answer.bytes, last);
            answer.zeros = last;
            break;
        case ALLOC_BUFFER:      words({ADDRESS, last}); break;
        case BUFFER_GET_BASE:   words({ADDRESS}); break;
        case GET_ALIGNMENT:     words({ALIGNMENT}); break;
        case GET_MAX_SIZE:      words({MEMORY}); break;
        case GET_DEVICE_MEMORY: words({MEMORY, MEMORY}); break;
        case GET_ALLOC_SIZE:    words({0}); break;
        default:                bytes({1}); break;  // SET_TENSOR_HASH, COPY_TENSOR: done
    }
    return answer;
}

}  // namespace pytriattn::rpc
