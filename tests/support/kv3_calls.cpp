// Calls one function of KV3 with what comes from standard input, for instruction sets that have to be emulated:
// the name of the function, the number of values and a weight as arguments, then the bytes of its arrays.
#include "kv3.h"

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

template <typename T>
static void write(const std::vector<T> & values) {
    const auto n_bytes = static_cast<std::streamsize>(values.size() * sizeof(T));
    std::cout.write(reinterpret_cast<const char *>(values.data()), n_bytes);
}

int main(int, char ** arguments) {
    const std::string name = arguments[1];
    const int64_t n = std::atoll(arguments[2]);
    const float weight = std::strtof(arguments[3], nullptr);
    const std::vector<char> in((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    const size_t row = static_cast<size_t>(n) / KV3_BLOCK * sizeof(block_kv3);
    std::vector<char> rows(row);
    if (name == "quantise") {
        quantize_row_kv3(reinterpret_cast<const float *>(in.data()), rows.data(), n);
        write(rows);
    } else if (name == "fed_back") {  // the values, then the feedback of each head, whose size is `weight`
        const auto * values = reinterpret_cast<const float *>(in.data());
        quantize_row_kv3_fed_back(values, rows.data(), values + n, static_cast<int64_t>(weight), n);
        write(rows);
    } else if (name == "reference") {
        quantize_row_kv3_ref(reinterpret_cast<const float *>(in.data()), rows.data(), n);
        write(rows);
    } else if (name == "dequantise") {
        std::vector<float> values(static_cast<size_t>(n));
        dequantize_row_kv3(in.data(), values.data(), n);
        write(values);
    } else if (name == "dot") {  // a row, then one of q8_0
        std::vector<float> result(1);
        ggml_vec_dot_kv3_q8_0(static_cast<int>(n), result.data(), 0, in.data(), 0, in.data() + row, 0, 1);
        write(result);
    } else if (name == "add_weighted") {  // a row, then the total
        std::vector<char> total(in.begin() + static_cast<std::ptrdiff_t>(row), in.end());
        std::vector<float> values(static_cast<size_t>(n));
        std::copy(total.begin(), total.end(), reinterpret_cast<char *>(values.data()));
        ggml_vec_mad_kv3(n, values.data(), in.data(), weight);
        write(values);
    }
    return 0;
}
