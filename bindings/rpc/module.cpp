// More than one machine: the devices of ggml's RPC servers, and such a server itself.
#include "bindings.h"

#include <algorithm>

namespace pytriattn {
namespace {

template <typename F>
F rpc_function(const char * name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("RPC");
    void * address = reg != nullptr ? ggml_backend_reg_get_proc_address(reg, name) : nullptr;
    if (address == nullptr) {
        throw triattn::ModelLoadError("this build has no RPC backend; build with -C cmake.define.GGML_RPC=ON");
    }
    return reinterpret_cast<F>(address);
}

using AddServer = ggml_backend_reg_t (*)(const char * endpoint);
using StartServer = void (*)(const char * endpoint, const char * cache_dir, size_t n_threads, size_t n_devices,
                             ggml_backend_dev_t * devices);

// Serves until its socket fails: it returns only if it could not start. No devices: all GPUs, or the CPU where there is
// none.
void serve(const std::string & endpoint, const std::string & cache_dir, size_t n_threads,
           const std::vector<std::string> & devices) {
    const auto start = rpc_function<StartServer>("ggml_backend_rpc_start_server");
    std::vector<ggml_backend_dev_t> chosen;
    for (size_t i = 0; devices.empty() && i < ggml_backend_dev_count(); ++i) {
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(ggml_backend_dev_get(i));
        if (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU) {
            chosen.push_back(ggml_backend_dev_get(i));
        }
    }
    if (devices.empty() && chosen.empty()) {
        chosen.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    }
    for (const std::string & name : devices) {
        chosen.push_back(ggml_backend_dev_by_name(name.c_str()));
        if (chosen.back() == nullptr) {
            throw triattn::ContextError("there is no device '" + name + "' on this machine");
        }
    }
    const GilRelease release;
    start(endpoint.c_str(), cache_dir.empty() ? nullptr : cache_dir.c_str(), n_threads, chosen.size(), chosen.data());
}

}  // namespace

RpcDevices::RpcDevices(const std::vector<std::string> & servers) {
    if (servers.empty()) {
        return;
    }
    const auto add_server = rpc_function<AddServer>("ggml_backend_rpc_add_server");
    for (const std::string & server : servers) {
        const std::shared_ptr<RpcLink> link = RpcLink::to(server);
        links_.push_back(link);
        // not registered with ggml: a model that does not ask for the server has nothing to do with it
        ggml_backend_reg_t reg = add_server(link->endpoint().c_str());
        const size_t n = reg != nullptr ? ggml_backend_reg_dev_count(reg) : 0;
        for (size_t i = 0; i < n; ++i) {
            devices_.push_back(ggml_backend_reg_dev_get(reg, i));
            names_.push_back("RPC " + server + (n > 1 ? " #" + std::to_string(i) : ""));
        }
        if (n > 0) {
            connections_.emplace_back(ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr));
        }
        if (n == 0 || link->lost()) {
            throw triattn::ModelLoadError("the RPC server '" + server + "' " +
                                          (n == 0 ? "has no devices" : link->reason()));
        }
    }
}

std::string RpcDevices::name_of(ggml_backend_dev_t device) const {
    const auto found = std::find(devices_.begin(), devices_.end(), device);
    return found != devices_.end() ? names_[static_cast<size_t>(found - devices_.begin())]
                                   : ggml_backend_dev_name(device);
}

bool RpcDevices::lost() const {
    return std::any_of(links_.begin(), links_.end(), [](const auto & link) { return link->lost(); });
}

void RpcDevices::check() const {
    for (const auto & link : links_) {
        if (link->lost()) {
            throw ServerLostError("the RPC server '" + link->server() + "' " + link->reason() +
                                  "; what it held of the model and of the cache is gone: "
                                  "close this object, see that the server runs, and load the model again");
        }
    }
}

void RpcDevices::give_up() const {
    for (const auto & link : links_) {
        link->give_up();
    }
}

void add_rpc(py::module_ & m) {
    m.def("rpc_serve", &serve, py::arg("endpoint"), py::arg("cache_dir"), py::arg("n_threads"), py::arg("devices"));
}

}  // namespace pytriattn
