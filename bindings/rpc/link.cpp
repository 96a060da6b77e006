#include "rpc/link.h"

#include "errors.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

namespace pytriattn {
namespace {

constexpr size_t CHUNK = size_t{1} << 20;
constexpr int HANDSHAKE_MS = 10'000;

}  // namespace

std::shared_ptr<RpcLink> RpcLink::to(const std::string & server) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<RpcLink>> links;
    const std::lock_guard<std::mutex> lock(mutex);
    std::shared_ptr<RpcLink> link = links[server].lock();
    if (!link || link->lost()) {
        link.reset(new RpcLink(server));
        links[server] = link;
    }
    return link;
}

RpcLink::RpcLink(const std::string & server) : server_(server), buffer_(CHUNK) {
    connect();
    std::tie(wake_read_, wake_write_) = make_pipe();
    int port = 0;
    std::tie(listener_, port) = listen_on_loopback();
    endpoint_ = "127.0.0.1:" + std::to_string(port);
    thread_ = std::thread([this] { run(); });
}

RpcLink::~RpcLink() {
    must_stop_ = true;
    wake(wake_write_);
    if (thread_.joinable()) {
        thread_.join();
    }
}

std::string RpcLink::reason() const {
    const std::lock_guard<std::mutex> lock(reason_mutex_);
    return reason_;
}

void RpcLink::give_up() {
    must_give_up_ = true;
    wake(wake_write_);
}

void RpcLink::mark_lost(const std::string & reason) {
    connection_.reset();
    const std::lock_guard<std::mutex> lock(reason_mutex_);
    if (!is_lost_) {
        reason_ = reason;
        is_lost_ = true;
    }
}

void RpcLink::mark_connection_lost() {
    mark_lost(must_give_up_ ? "was given up" : "has gone away or closed the connection");
}

// Greets the server and asks it for the number of its devices.
void RpcLink::connect() {
    const std::string name = "the RPC server '" + server_ + "'";
    connection_ = connect_to(server_);
    const Limit limit{nullptr, HANDSHAKE_MS};
    const auto ask = [&](rpc::Command command, const std::vector<uint8_t> & payload, size_t size) {
        const std::vector<uint8_t> request = rpc::request(command, payload);
        std::vector<uint8_t> answer(rpc::SIZE + size);
        if (!send_all(connection_, request.data(), request.size(), limit) ||
            !receive_all(connection_, answer.data(), answer.size(), limit)) {
            throw triattn::ModelLoadError(
                name +
                " takes the connection but does not answer. A server has one client at a time: end the other client, "
                "start a second server on another port, or check that the port is that of a server");
        }
        if (rpc::read_u64(answer.data()) != size) {
            throw triattn::ModelLoadError(name + " does not answer like an RPC server; check the port");
        }
        answer.erase(answer.begin(), answer.begin() + rpc::SIZE);
        return answer;
    };
    const std::vector<uint8_t> version = ask(rpc::HELLO, std::vector<uint8_t>(rpc::CAPABILITIES), rpc::HELLO_ANSWER);
    if (version[0] != RPC_PROTO_MAJOR_VERSION || version[1] > RPC_PROTO_MINOR_VERSION ||
        version[2] != RPC_PROTO_PATCH_VERSION) {
        const auto text = [](int a, int b, int c) {
            return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
        };
        throw triattn::ModelLoadError(name + " speaks version " + text(version[0], version[1], version[2]) +
                                      " of the protocol, this build " +
                                      text(RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION, RPC_PROTO_PATCH_VERSION) +
                                      "; start pytriattn-rpc-server of the same release there");
    }
    const std::vector<uint8_t> count = ask(rpc::DEVICE_COUNT, {}, sizeof n_devices_);
    uint32_t n = 0;
    std::memcpy(&n, count.data(), sizeof n);
    if (n == 0 || (n_devices_ != 0 && n != n_devices_)) {
        throw triattn::ModelLoadError(name + " has " + std::to_string(n) + " devices" +
                                      (n == 0 ? "" : " now, it had " + std::to_string(n_devices_)) +
                                      "; start it again with the devices that it should lend");
    }
    n_devices_ = n;
    is_used_ = false;
}

void RpcLink::run() {
    while (!must_stop_) {
        const Readable ready = wait_for(listener_, Descriptor(), wake_read_);
        drain(wake_read_);
        const Descriptor client = ready.first && !must_stop_ ? accept_from(listener_) : Descriptor();
        if (!client) {
            continue;
        }
        if (!is_lost_ && !connection_) {
            try {
                connect();
            } catch (const triattn::Error & error) {
                mark_lost(std::string("could not be reached again: ") + error.what());
            }
        }
        relay(client);
        if (is_used_) {
            connection_.reset();  // the server frees what this client had, and can take another
        }
    }
}

void RpcLink::relay(const Descriptor & client) {
    while (!must_stop_) {
        const Readable ready = wait_for(client, connection_, wake_read_);
        if (must_give_up_ || ready.second) {
            mark_connection_lost();  // it has nothing to say when it was not asked
        }
        drain(wake_read_);
        if (ready.first && !handle_command(client)) {
            return;
        }
    }
}

// One command of the client; false: the client has gone.
bool RpcLink::handle_command(const Descriptor & client) {
    size_t held = rpc::HEADER;
    if (!receive_all(client, buffer_.data(), held)) {
        return false;
    }
    const uint8_t command = buffer_[0];
    const bool is_ours = command == rpc::HELLO || command == rpc::DEVICE_COUNT;  // connect() has asked
    uint64_t left = rpc::read_u64(buffer_.data() + 1);
    uint64_t last = 0;
    do {
        // the header goes together with what follows it: one packet less
        const size_t n = static_cast<size_t>(std::min<uint64_t>(left, buffer_.size() - held));
        if (!receive_all(client, buffer_.data() + held, n)) {
            return false;
        }
        held += n;
        left -= n;
        if (left == 0 && n >= sizeof last) {
            last = rpc::read_u64(buffer_.data() + held - sizeof last);
        }
        if (connection_ && !is_ours) {
            is_used_ = true;
            if (!send_all(connection_, buffer_.data(), held, {&wake_read_, -1})) {
                mark_connection_lost();
            }
        }
        held = 0;
    } while (left > 0);

    if (!rpc::has_answer(command)) {
        return true;
    }
    const rpc::Answer substitute = rpc::substitute_for(command, last, n_devices_);
    return connection_ && !is_ours ? forward_answer(client, substitute) : send_answer(client, substitute, 0);
}

// Hands the server's answer to the client; what is missing of it comes from the substitute, which has the same size.
bool RpcLink::forward_answer(const Descriptor & client, const rpc::Answer & substitute) {
    const Limit limit{&wake_read_, -1};
    uint64_t done = 0;
    while (done < substitute.size()) {
        // the size and the first bytes together
        size_t n = 0;
        if (done == 0) {
            if (!receive_all(connection_, buffer_.data(), rpc::SIZE, limit) ||
                rpc::read_u64(buffer_.data()) != substitute.size() - rpc::SIZE) {
                mark_connection_lost();
                break;
            }
            n = rpc::SIZE;
        }
        const size_t more = static_cast<size_t>(std::min<uint64_t>(substitute.size() - done - n, buffer_.size() - n));
        if (!receive_all(connection_, buffer_.data() + n, more, limit)) {
            mark_connection_lost();
            break;
        }
        if (!send_all(client, buffer_.data(), n + more)) {
            return false;
        }
        done += n + more;
    }
    return send_answer(client, substitute, done);
}

// The answer from its byte `done` on.
bool RpcLink::send_answer(const Descriptor & client, const rpc::Answer & answer, uint64_t done) {
    if (done < answer.bytes.size() && !send_all(client, answer.bytes.data() + done, answer.bytes.size() - done)) {
        return false;
    }
    done = std::max<uint64_t>(done, answer.bytes.size());
    if (done < answer.size()) {
        std::fill(buffer_.begin(), buffer_.end(), uint8_t{0});
    }
    while (done < answer.size()) {
        const size_t n = static_cast<size_t>(std::min<uint64_t>(answer.size() - done, buffer_.size()));
        if (!send_all(client, buffer_.data(), n)) {
            return false;
        }
        done += n;
    }
    return true;
}

}  // namespace pytriattn
