// What the binding files share. One file a subject; module.cpp calls their add_* functions.
#pragma once

#include "errors.h"
#include "gil.h"
#include "rope.h"
#include "rpc/devices.h"
#include "scorer.h"
#include "stats.h"

#include "llama-cpp.h"
#include "llama.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace pytriattn {

namespace py = pybind11;

template <typename T>
using array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// For messages: "[3, 64]".
inline std::string shape_of(const py::array & values) {
    std::string text;
    for (py::ssize_t i = 0; i < values.ndim(); ++i) {
        text += (i > 0 ? ", " : "") + std::to_string(values.shape(i));
    }
    return "[" + text + "]";
}

void add_errors(py::module_ & m);
void add_log(py::module_ & m);
void add_backends(py::module_ & m);
void add_model(py::module_ & m);
void add_rope_overrides(py::module_ & m);
void add_stats(py::module_ & m);
void add_engine(py::module_ & m);
void add_chat(py::module_ & m);
void add_context(py::module_ & m);
void add_drafter(py::module_ & m);
void add_sampler(py::module_ & m);
void add_adapters(py::module_ & m);
void add_records(py::module_ & m);
void add_eviction_view(py::module_ & m);
void add_settings(py::module_ & m);
void add_rules(py::module_ & m);
void add_attention(py::module_ & m);
void add_testing(py::module_ & m);
void add_reference_loop(py::module_ & testing);
void add_rpc(py::module_ & m);

struct ClosedError : triattn::Error { using triattn::Error::Error; };
struct BackendError : triattn::Error { using triattn::Error::Error; };
struct BusyError : triattn::Error { using triattn::Error::Error; };
struct GrammarError : triattn::Error { using triattn::Error::Error; };
struct ChatError : triattn::Error { using triattn::Error::Error; };

// ": <what llama.cpp logged as errors since the last call>", or an empty string.
std::string recent_errors();

// A path as llama.cpp takes it: the system's own bytes, also where they are not UTF-8.
inline std::string native_path(const std::filesystem::path & path) { return path.u8string(); }

triattn::ScoreOptions score_options(const std::vector<int32_t> & offsets, bool use_trig, bool use_norm,
                                    bool use_unrotated);

// A loaded model. Shared by contexts, so that it outlives them.
struct Model {
    std::string path;
    RpcDevices rpc;  // outlives what the model has there
    llama_model_ptr model;
    const llama_vocab * vocab() const { return llama_model_get_vocab(model.get()); }
};

// Marks an object as in use by one thread; contention is an error at once, not a queue and not a crash.
class BusyGuard {
public:
    BusyGuard(std::atomic_flag & flag, const char * what) : flag_(flag) {
        if (flag_.test_and_set()) {
            throw BusyError(std::string(what) +
                            " is in use by another thread; give each thread its own, or take turns");
        }
    }
    ~BusyGuard() { flag_.clear(); }
    BusyGuard(const BusyGuard &) = delete;
    BusyGuard & operator=(const BusyGuard &) = delete;

private:
    std::atomic_flag & flag_;
};

// Lets Python's signal handlers run while the GIL is released: Ctrl-C raises in them, and the computation stops.
class SignalPoll {
public:
    bool operator()();
    // Whether another signal has come since the one that waits to be raised.
    bool has_another();
    // Raises the Python exception that a handler raised, if one did. Call with the GIL.
    void rethrow();

private:
    std::unique_ptr<py::error_already_set> pending_;
    int64_t last_ns_ = 0;
};

// An array over the memory of `owner`, which lives as long as the array and all views of it.
template <typename T, typename Owner>
array<T> array_over(const T * data, std::vector<py::ssize_t> shape, std::unique_ptr<Owner> owner) {
    const py::capsule base(owner.get(), [](void * pointer) { std::unique_ptr<Owner>(static_cast<Owner *>(pointer)); });
    owner.release();
    return array<T>(std::move(shape), data, base);
}

// The values as an array, which takes over a temporary's memory.
template <typename T>
array<T> to_array(std::vector<T> values, std::vector<py::ssize_t> shape) {
    auto owner = std::make_unique<std::vector<T>>(std::move(values));
    const T * data = owner->data();
    return array_over(data, std::move(shape), std::move(owner));
}

// Marks (0 or 1) as an array of truth values.
inline array<bool> to_bool_array(const std::vector<uint8_t> & marks, std::vector<py::ssize_t> shape) {
    array<bool> result(std::move(shape));
    std::transform(marks.begin(), marks.end(), result.mutable_data(), [](uint8_t mark) { return mark != 0; });
    return result;
}

template <typename T>
std::vector<T> to_vector(const array<T> & values) {
    return std::vector<T>(values.data(), values.data() + values.size());
}

}  // namespace pytriattn
