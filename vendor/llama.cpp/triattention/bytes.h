// Numbers as bytes and back, for saved states.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace triattn {

void put(std::vector<uint8_t> & bytes, const void * data, size_t size);

// Reads back what put() and put_all() wrote, in the same order. Throws DecodeError where there is less or more.
class ByteReader {
public:
    ByteReader(const uint8_t * bytes, size_t size) : bytes_(bytes), left_(size) {}
    void get(void * to, size_t size);
    void check_at_end() const;
    size_t left() const { return left_; }

private:
    const uint8_t * bytes_;
    size_t left_;
};

// Values with their number in front.
template <typename T>
void put_all(std::vector<uint8_t> & bytes, const std::vector<T> & values) {
    const uint64_t n = values.size();
    put(bytes, &n, sizeof n);
    put(bytes, values.data(), n * sizeof(T));
}

template <typename T>
void get_all(ByteReader & in, std::vector<T> & values) {
    uint64_t n = 0;
    in.get(&n, sizeof n);
    if (n > in.left() / sizeof(T)) {
        in.get(nullptr, in.left() + 1);  // says what is wrong, before anything is allocated
    }
    values.resize(n);
    in.get(values.data(), n * sizeof(T));
}

}  // namespace triattn
