// The devices of RPC servers, as a model holds them.
#pragma once

#include "errors.h"
#include "rpc/link.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace pytriattn {

// A server has gone away while something of it was in use. Nothing on it can be had back: the model must be loaded
// again.
struct ServerLostError : triattn::Error { using triattn::Error::Error; };

class RpcDevices {
public:
    RpcDevices() = default;

    // Connects to all of them ("host:port"). Throws ModelLoadError naming the one that cannot be used, and the remedy.
    explicit RpcDevices(const std::vector<std::string> & servers);

    bool empty() const { return links_.empty(); }
    const std::vector<ggml_backend_dev_t> & list() const { return devices_; }

    // "RPC host:port", and the device's number there if the server has several; ggml's own name for a device of this
    // machine.
    std::string name_of(ggml_backend_dev_t device) const;

    bool lost() const;
    void check() const;    // throws ServerLostError if lost()
    void give_up() const;  // stops waiting for any of them

    // Runs `work`, and throws ServerLostError in place of its result or of its error if a server is gone by then.
    template <typename F>
    auto guard(F && work) const {
        check();
        try {
            if constexpr (std::is_void_v<decltype(work())>) {
                work();
                check();
            } else {
                auto result = work();
                check();
                return result;
            }
        } catch (...) {
            check();
            throw;
        }
    }

private:
    std::vector<std::shared_ptr<RpcLink>> links_;
    std::vector<ggml_backend_ptr> connections_;  // keep ggml from connecting anew for everything it asks
    std::vector<ggml_backend_dev_t> devices_;
    std::vector<std::string> names_;
};

}  // namespace pytriattn
