// ggml's backends: modules, loaded by path one by one as pytriattn/_native asks for them, and what they offer.
#include "repr.h"

#include "ggml-backend.h"

#include <filesystem>
#include <optional>

#ifdef _WIN32
#    define WIN32_LEAN_AND_MEAN
#    define NOMINMAX
#    include <windows.h>
#else
#    include <dlfcn.h>
#endif

namespace pytriattn {
namespace {

namespace fs = std::filesystem;

// A dynamic library held open by its path.
class Library {
public:
    explicit Library(const fs::path & path) {
        if (!path.is_absolute()) {
            throw BackendError("'" + path.string() + "' is not an absolute path; backends are never searched for");
        }
#ifdef _WIN32
        handle_ = LoadLibraryExW(path.wstring().c_str(), nullptr,
                                 LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS);
        if (handle_ == nullptr) {
            throw BackendError("'" + path.string() + "' cannot be loaded: error " + std::to_string(GetLastError()));
        }
#else
        handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | own_symbols_first());
        if (handle_ == nullptr) {
            const char * reason = dlerror();
            throw BackendError("'" + path.string() +
                               "' cannot be loaded: " + (reason == nullptr ? "no reason given" : reason));
        }
#endif
    }
    ~Library() {
#ifdef _WIN32
        FreeLibrary(handle_);
#else
        dlclose(handle_);
#endif
    }
    Library(const Library &) = delete;
    Library & operator=(const Library &) = delete;

    void * symbol(const char * name) const {
#ifdef _WIN32
        return reinterpret_cast<void *>(GetProcAddress(handle_, name));
#else
        return dlsym(handle_, name);
#endif
    }

private:
#ifdef _WIN32
    HMODULE handle_ = nullptr;
#else
    void * handle_ = nullptr;

    // Symbols of another ggml that was loaded with RTLD_GLOBAL would be found before ours. Not the rule, since it also
    // passes by a malloc that was put in with LD_PRELOAD.
    static int own_symbols_first() {
#    ifdef RTLD_DEEPBIND
        void * everything = dlopen(nullptr, RTLD_NOW);
        const bool stranger = everything != nullptr && dlsym(everything, "ggml_backend_load") != nullptr;
        if (everything != nullptr) {
            dlclose(everything);
        }
        return stranger ? RTLD_DEEPBIND : 0;
#    else
        return 0;
#    endif
    }
#endif
};

// How well a CPU module fits this machine: 0 if it cannot run here, None if it does not say.
std::optional<int> backend_score(const std::string & path) {
    const Library library(fs::u8path(path));
    const auto score = reinterpret_cast<int (*)()>(library.symbol("ggml_backend_score"));
    return score == nullptr ? std::nullopt : std::optional<int>(score());
}

// Returns ggml's name for the backend ("CPU", "CUDA").
std::string load_backend(const std::string & path) {
    recent_errors();
    const Library library(fs::u8path(path));  // ggml's own handle follows; this one settles how symbols are found
    if (library.symbol("ggml_backend_init") == nullptr) {
        throw BackendError("'" + path + "' is no ggml backend: it has no ggml_backend_init");
    }
    ggml_backend_reg_t backend = nullptr;
    {
        const GilRelease release;
        backend = ggml_backend_load(path.c_str());
    }
    if (backend == nullptr) {
        throw BackendError("'" + path + "' is not a backend that can run here");
    }
    return ggml_backend_reg_name(backend);
}

// After the CPU's module is in: llama.cpp would otherwise search for modules itself, also in the working directory.
void init_llama() {
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
        throw BackendError("no CPU backend is loaded");
    }
    llama_backend_init();
}

struct Device {
    std::string name, description, type, backend;
    size_t free, total;
};

const char * type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:   return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:   return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:  return "igpu";
        case GGML_BACKEND_DEVICE_TYPE_ACCEL: return "accelerator";
        default:                             return "other";
    }
}

std::vector<Device> device_list() {
    const GilRelease release;
    std::vector<Device> result;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        Device entry{ggml_backend_dev_name(device),
                     ggml_backend_dev_description(device),
                     type_name(ggml_backend_dev_type(device)),
                     ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)),
                     0,
                     0};
        ggml_backend_dev_memory(device, &entry.free, &entry.total);
        result.push_back(std::move(entry));
    }
    return result;
}

struct LoadedBackend {
    std::string name;
    size_t n_devices;
};

std::vector<LoadedBackend> backend_list() {
    std::vector<LoadedBackend> result;
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        ggml_backend_reg_t backend = ggml_backend_reg_get(i);
        result.push_back({ggml_backend_reg_name(backend), ggml_backend_reg_dev_count(backend)});
    }
    return result;
}

// What the backend was built with or has found, by name, in its own order; empty for one that does not say.
py::typing::Dict<py::str, py::str> backend_features(const std::string & name) {
    ggml_backend_reg_t backend = ggml_backend_reg_by_name(name.c_str());
    if (backend == nullptr) {
        throw BackendError("no backend of the name '" + name + "' is loaded");
    }
    py::typing::Dict<py::str, py::str> result;
    const auto features = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(backend, "ggml_backend_get_features"));
    if (features != nullptr) {
        for (const ggml_backend_feature * feature = features(backend); feature->name != nullptr; ++feature) {
            result[feature->name] = feature->value;
        }
    }
    return result;
}

}  // namespace

void add_backends(py::module_ & m) {
    m.def("backend_score", &backend_score, py::arg("path"));
    m.def("load_backend", &load_backend, py::arg("path"));
    m.def("init_llama", &init_llama);
    auto backend = py::class_<LoadedBackend>(m, "LoadedBackend", "A backend that ggml has loaded.")
                       .def_readonly("name", &LoadedBackend::name, "ggml's name for it: CPU, CUDA.")
                       .def_readonly("n_devices", &LoadedBackend::n_devices, "How many devices it has.");
    add_repr(backend, {"name", "n_devices"});
    m.def("backend_list", &backend_list, "Return the backends, in the order in which they were loaded.");
    m.def("backend_features", &backend_features, py::arg("name"),
          "Return what the backend of this name was built with or has found, by name.");
    py::class_<Device>(m, "Device")
        .def_readonly("name", &Device::name)
        .def_readonly("description", &Device::description)
        .def_readonly("type", &Device::type)
        .def_readonly("backend", &Device::backend)
        .def_readonly("free", &Device::free)
        .def_readonly("total", &Device::total);
    m.def("device_list", &device_list);
    m.def("system_info", [] { return std::string(llama_print_system_info()); });
}

}  // namespace pytriattn
