#include "bytes.h"

#include "errors.h"

#include <cstring>

namespace triattn {

void ByteReader::get(void * to, size_t size) {
    if (size > left_) {
        throw DecodeError("the saved state does not fit this context: what is known of its keys ends too early");
    }
    if (size > 0) {  // an empty vector has no address
        std::memcpy(to, bytes_, size);
    }
    bytes_ += size;
    left_ -= size;
}

void ByteReader::check_at_end() const {
    if (left_ != 0) {
        throw DecodeError("the saved state does not fit this context: more is known of its keys than it can take");
    }
}

void put(std::vector<uint8_t> & bytes, const void * data, size_t size) {
    const auto * first = static_cast<const uint8_t *>(data);
    bytes.insert(bytes.end(), first, first + size);
}

}  // namespace triattn
