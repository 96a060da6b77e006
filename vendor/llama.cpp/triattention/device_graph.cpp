#include "device_graph.h"

#include "errors.h"

#include <algorithm>
#include <string>

namespace triattn {
namespace {

// The CPU backend is a module, so its functions are found by name and not by linking.
void set_threads(ggml_backend_t backend, ggml_backend_dev_t device, int n_threads) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
    auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
    if (set != nullptr) {
        set(backend, n_threads);
    }
}

ggml_backend_dev_t device_of(const ggml_tensor * tensor) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(tensor->buffer));
    return device != nullptr ? device
                             : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);  // plain host memory names none
}

}  // namespace

DeviceGraph::DeviceGraph(const std::vector<ggml_tensor *> & tensors, int n_threads) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu == nullptr) {
        throw Error("no CPU backend is loaded");
    }
    std::vector<ggml_backend_dev_t> devices;
    for (const ggml_tensor * tensor : tensors) {
        ggml_backend_dev_t device = device_of(tensor);
        if (device != cpu && std::find(devices.begin(), devices.end(), device) == devices.end()) {
            devices.push_back(device);
        }
    }
    devices.push_back(cpu);  // the scheduler wants it last
    for (ggml_backend_dev_t device : devices) {
        backends_.emplace_back(ggml_backend_dev_init(device, nullptr));
        if (!backends_.back()) {
            throw Error(std::string("cannot start backend ") + ggml_backend_dev_name(device));
        }
        set_threads(backends_.back().get(), device, n_threads);
    }
}

ggml_context * DeviceGraph::begin(size_t n_tensors) {
    inputs_.clear();
    places_.clear();
    ctx_.reset(
        ggml_init({n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false), nullptr, true}));
    if (!ctx_) {
        throw Error("out of memory");
    }
    graph_ = ggml_new_graph_custom(ctx_.get(), n_tensors, false);
    if (!sched_ || sched_capacity_ < n_tensors) {
        std::vector<ggml_backend_t> backends;
        for (const auto & backend : backends_) {
            backends.push_back(backend.get());
        }
        sched_.reset(ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), n_tensors,
                                            false, false));
        sched_capacity_ = n_tensors;
        if (!sched_) {
            throw Error("out of memory");
        }
    }
    return ctx_.get();
}

ggml_tensor * DeviceGraph::input(const void * data, ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2) {
    ggml_tensor * tensor = ggml_new_tensor_3d(ctx_.get(), type, ne0, ne1, ne2);
    ggml_set_input(tensor);
    const auto * bytes = static_cast<const uint8_t *>(data);
    inputs_.push_back({tensor, std::vector<uint8_t>(bytes, bytes + ggml_nbytes(tensor))});
    return tensor;
}

ggml_tensor * DeviceGraph::input_f32(const std::vector<float> & data, int64_t ne0, int64_t ne1, int64_t ne2) {
    if (static_cast<int64_t>(data.size()) != ne0 * ne1 * ne2) {
        throw Error("internal: an input has the wrong size");
    }
    return input(data.data(), GGML_TYPE_F32, ne0, ne1, ne2);
}

void DeviceGraph::expand(ggml_tensor * node, bool output, const ggml_tensor * storage) {
    if (output) {
        ggml_set_output(node);
    }
    const int first = ggml_graph_n_nodes(graph_);
    ggml_build_forward_expand(graph_, node);
    const auto holds = [&](const ggml_backend_ptr & backend) {
        return ggml_backend_get_device(backend.get()) == device_of(storage);
    };
    if (storage == nullptr) {
        return;
    }
    const auto found = std::find_if(backends_.begin(), backends_.end(), holds);
    if (found == backends_.end()) {
        throw Error(std::string("internal: no backend for ") + storage->name);
    }
    for (int i = first; i < ggml_graph_n_nodes(graph_); ++i) {
        places_.push_back({ggml_graph_node(graph_, i), found->get()});
    }
}

std::vector<std::string> DeviceGraph::missing_operations(ggml_backend_dev_t device) const {
    std::vector<std::string> missing;
    for (const Place & place : places_) {
        ggml_backend_dev_t runs_on = device != nullptr ? device : ggml_backend_get_device(place.backend);
        const ggml_tensor * node = place.node;
        if (ggml_backend_dev_supports_op(runs_on, node)) {
            continue;
        }
        std::string text = std::string(ggml_op_name(node->op)) + " from";
        for (int i = 0; i < GGML_MAX_SRC && node->src[i] != nullptr; ++i) {
            text += std::string(i > 0 ? ", " : " ") + ggml_type_name(node->src[i]->type) + " [" +
                    std::to_string(node->src[i]->ne[0]) + ", " + std::to_string(node->src[i]->ne[1]) + ", " +
                    std::to_string(node->src[i]->ne[2]) + "]";
        }
        text += std::string(" to ") + ggml_type_name(node->type) + " on " + ggml_backend_dev_name(runs_on);
        if (std::find(missing.begin(), missing.end(), text) == missing.end()) {
            missing.push_back(text);
        }
    }
    return missing;
}

void DeviceGraph::run() {
    ggml_backend_sched_reset(sched_.get());
    for (const Place & place : places_) {
        ggml_backend_sched_set_tensor_backend(sched_.get(), place.node, place.backend);
    }
    if (!ggml_backend_sched_alloc_graph(sched_.get(), graph_)) {
        throw DecodeError("not enough device memory for the eviction graph");
    }
    for (const Input & input : inputs_) {
        if (input.tensor->buffer != nullptr) {  // null: no node uses it
            ggml_backend_tensor_set(input.tensor, input.bytes.data(), 0, input.bytes.size());
        }
    }
    const ggml_status status = ggml_backend_sched_graph_compute(sched_.get(), graph_);
    if (status != GGML_STATUS_SUCCESS) {
        throw DecodeError(std::string("the eviction graph failed: ") + ggml_status_to_string(status));
    }
}

}  // namespace triattn
