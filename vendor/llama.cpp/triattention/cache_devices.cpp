#include "cache_devices.h"

#include "decoder_params.h"
#include "errors.h"

#include "ggml-cpp.h"

#include <cstring>
#include <string>

namespace triattn {

bool can_store(ggml_backend_dev_t device, ggml_type type) {
    constexpr int64_t WIDTH = 256, N_ROWS = 2;  // whole blocks of every type
    ggml_context_ptr ctx(ggml_init({4 * ggml_tensor_overhead(), nullptr, /*no_alloc*/ true}));
    if (!ctx) {
        throw Error("out of memory");
    }
    ggml_tensor * cache = ggml_new_tensor_2d(ctx.get(), type, WIDTH, N_ROWS);
    ggml_tensor * rows = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, WIDTH, N_ROWS);
    ggml_tensor * slots = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I64, N_ROWS);
    return ggml_backend_dev_supports_op(device, ggml_set_rows(ctx.get(), cache, rows, slots));
}

bool feeds_back_errors(ggml_backend_buffer_type_t type) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
    return device == nullptr || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU ||
           std::strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)), "RPC") == 0;
}

void check_cache_devices(const std::vector<ggml_backend_dev_t> & devices, ggml_type type_k, ggml_type type_v) {
    for (ggml_backend_dev_t device : devices) {
        for (const auto & [name, type] : {std::pair("type_k", type_k), std::pair("type_v", type_v)}) {
            if (can_store(device, type)) {
                continue;
            }
            std::string others;
            for (ggml_type other : cache_types()) {
                if (can_store(device, other)) {
                    others += (others.empty() ? "" : ", ") + std::string(ggml_type_name(other));
                }
            }
            throw ContextError(std::string(name) + "='" + ggml_type_name(type) + "' cannot be stored on " +
                               ggml_backend_dev_name(device) + " (" + ggml_backend_dev_description(device) +
                               "); use one of " + others + ", or n_gpu_layers=0");
        }
    }
}

}  // namespace triattn
