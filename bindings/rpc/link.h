// A connection to an RPC server that does not break for ggml.
//
// ggml's RPC client ends the process when its connection does. So it is never given the server's own address: it talks
// to a relay in this process, which passes everything on. When the server goes away, the relay answers in its place,
// mostly with zeros, and says so through lost(). Whoever computes with the devices must ask for that before results are
// believed. What ggml thinks it has on the server can then still be "freed", so that everything is closed in the usual
// way.
#pragma once

#include "rpc/protocol.h"
#include "rpc/socket.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace pytriattn {

class RpcLink {
public:
    // Connects to `server`, "host:port"; models of this process share a link, since a server takes one client at a
    // time. Throws ModelLoadError, with the remedy, if nothing answers there, or not as a server of this build's
    // protocol does.
    static std::shared_ptr<RpcLink> to(const std::string & server);

    // All that uses the endpoint must be freed before.
    ~RpcLink();
    RpcLink(const RpcLink &) = delete;
    RpcLink & operator=(const RpcLink &) = delete;

    const std::string & server() const { return server_; }
    const std::string & endpoint() const { return endpoint_; }  // of the relay: what ggml is to be given

    // Whether the server has gone away. What it held is lost; a new link may find it again.
    bool lost() const { return is_lost_; }
    std::string reason() const;  // in words, if lost()

    // From any thread: stop waiting for the server; it then counts as lost.
    void give_up();

private:
    explicit RpcLink(const std::string & server);

    void connect();
    void mark_lost(const std::string & reason);
    void mark_connection_lost();
    void run();
    void relay(const Descriptor & client);
    bool handle_command(const Descriptor & client);
    bool forward_answer(const Descriptor & client, const rpc::Answer & substitute);
    bool send_answer(const Descriptor & client, const rpc::Answer & answer, uint64_t done);

    std::string server_, endpoint_;
    uint32_t n_devices_ = 0;
    Descriptor listener_, connection_, wake_read_, wake_write_;
    bool is_used_ =
        false;  // the server has been told more than a greeting: then its connection cannot serve a second client
    std::atomic<bool> is_lost_{false}, must_stop_{false}, must_give_up_{false};
    mutable std::mutex reason_mutex_;
    std::string reason_;
    std::vector<uint8_t> buffer_;
    std::thread thread_;
};

}  // namespace pytriattn
