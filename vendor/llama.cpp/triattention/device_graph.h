// Builds and runs small ggml graphs on the devices that hold a cache. Tensors are read and written through the backend
// interface only, so it does not matter where they live.
#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace triattn {

class DeviceGraph {
public:
    // `tensors`: allocated tensors (a cache) whose devices are to be used. The CPU is always among the backends: the
    // scheduler falls back to it for an operation that a device lacks.
    DeviceGraph(const std::vector<ggml_tensor *> & tensors, int n_threads);

    // Starts a new graph with room for `n_tensors`; what an earlier one held is gone.
    ggml_context * begin(size_t n_tensors);

    // A leaf to be filled from host memory before the graph runs. The values are copied.
    ggml_tensor * input(const void * data, ggml_type type, int64_t ne0, int64_t ne1 = 1, int64_t ne2 = 1);
    ggml_tensor * input_f32(const std::vector<float> & data, int64_t ne0, int64_t ne1 = 1, int64_t ne2 = 1);

    // Adds the node and all it depends on. Its value can be read after run() if `output`. What is new is computed on
    // the device that holds `storage`, one of the constructor's tensors; null: the scheduler chooses.
    void expand(ggml_tensor * node, bool output, const ggml_tensor * storage = nullptr);

    // The operations of the graph that `device` does not have, in words; null: the devices that they are to run on. A
    // server's devices claim to have all (ggml does not ask the server).
    std::vector<std::string> missing_operations(ggml_backend_dev_t device) const;

    // Allocates, fills the inputs, computes and waits. Throws DecodeError.
    void run();

private:
    struct Place {
        ggml_tensor * node;
        ggml_backend_t backend;
    };
    struct Input {
        ggml_tensor * tensor;
        std::vector<uint8_t> bytes;
    };
    std::vector<ggml_backend_ptr> backends_;
    ggml_backend_sched_ptr sched_;
    size_t sched_capacity_ = 0;
    ggml_context_ptr ctx_;
    ggml_cgraph * graph_ = nullptr;
    std::vector<Input> inputs_;
    std::vector<Place> places_;
};

}  // namespace triattn
