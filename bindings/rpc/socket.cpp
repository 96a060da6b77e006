#include "rpc/socket.h"

#include "errors.h"

#ifndef _WIN32

#    include <arpa/inet.h>
#    include <fcntl.h>
#    include <netdb.h>
#    include <netinet/in.h>
#    include <netinet/tcp.h>
#    include <poll.h>
#    include <sys/socket.h>
#    include <unistd.h>

#    include <cerrno>
#    include <cstdint>
#    include <cstring>
#    include <memory>

namespace pytriattn {
namespace {

constexpr int CONNECT_MS = 5'000;

#    ifdef MSG_NOSIGNAL
constexpr int NO_SIGNAL = MSG_NOSIGNAL;
#    else
constexpr int NO_SIGNAL = 0;
#    endif

void set_option(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

// Without these, a host that loses its power would be waited for without end.
void enable_keepalive(int fd) {
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#    ifdef TCP_KEEPIDLE
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
#    endif
#    ifdef TCP_KEEPALIVE
    set_option(fd, IPPROTO_TCP, TCP_KEEPALIVE, 10);
#    endif
#    ifdef TCP_KEEPINTVL
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
#    endif
#    ifdef TCP_USER_TIMEOUT
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 25'000);
#    endif
}

// All our sockets: no waiting for full packets, no inheritance by other programs, no signal when the other side has
// gone.
Descriptor prepare_socket(int fd) {
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
#    ifdef SO_NOSIGPIPE
        set_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#    endif
    }
    return Descriptor(fd);
}

// 1: `fd` is ready for `events`; 0: the limit was met.
bool wait_until(int fd, short events, const Limit & limit) {
    pollfd waits[] = {{fd, events, 0}, {limit.waker != nullptr ? limit.waker->get() : -1, POLLIN, 0}};
    while (true) {
        const int n = poll(waits, 2, limit.milliseconds);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        return n > 0 && waits[1].revents == 0;
    }
}

// One address of a server; 0 or the system's reason.
int try_address(const addrinfo & address, Descriptor & result) {
    Descriptor fd = prepare_socket(socket(address.ai_family, address.ai_socktype, address.ai_protocol));
    if (!fd) {
        return errno;
    }
    const int flags = fcntl(fd.get(), F_GETFL);
    fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK);
    if (connect(fd.get(), address.ai_addr, address.ai_addrlen) != 0) {
        if (errno != EINPROGRESS) {
            return errno;
        }
        if (!wait_until(fd.get(), POLLOUT, {nullptr, CONNECT_MS})) {
            return ETIMEDOUT;
        }
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            return error;
        }
    }
    fcntl(fd.get(), F_SETFL, flags);
    enable_keepalive(fd.get());
    result = std::move(fd);
    return 0;
}

}  // namespace

void Descriptor::reset(int fd) {
    if (fd_ >= 0) {
        close(fd_);
    }
    fd_ = fd;
}

Descriptor connect_to(const std::string & server) {
    const size_t colon = server.rfind(':');
    std::string host = server.substr(0, colon);
    if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo * list = nullptr;
    const int status = getaddrinfo(host.c_str(), server.substr(colon + 1).c_str(), &hints, &list);
    if (status != 0) {
        throw triattn::ModelLoadError("the host of the RPC server '" + server + "' is not known (" +
                                      gai_strerror(status) + "); give host:port");
    }
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
    Descriptor result;
    int error = 0;
    for (const addrinfo * address = list; address != nullptr && !result; address = address->ai_next) {
        error = try_address(*address, result);
    }
    if (!result) {
        throw triattn::ModelLoadError(
            "the RPC server '" + server + "' cannot be reached (" + std::strerror(error) +
            "); start pytriattn-rpc-server there, and look whether a firewall lets the port through");
    }
    return result;
}

std::pair<Descriptor, int> listen_on_loopback() {
    Descriptor fd = prepare_socket(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto * any = reinterpret_cast<sockaddr *>(&address);
    if (!fd || bind(fd.get(), any, size) != 0 || listen(fd.get(), 8) != 0 || getsockname(fd.get(), any, &size) != 0) {
        throw triattn::Error(std::string("cannot listen on 127.0.0.1: ") + std::strerror(errno));
    }
    return {std::move(fd), ntohs(address.sin_port)};
}

Descriptor accept_from(const Descriptor & listener) { return prepare_socket(accept(listener.get(), nullptr, nullptr)); }

std::pair<Descriptor, Descriptor> make_pipe() {
    int ends[2];
    if (pipe(ends) != 0) {
        throw triattn::Error(std::string("cannot make a pipe: ") + std::strerror(errno));
    }
    for (int fd : ends) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return {Descriptor(ends[0]), Descriptor(ends[1])};
}

void wake(const Descriptor & writing_end) {
    const uint8_t byte = 0;
    if (write(writing_end.get(), &byte, 1) < 0) {
        return;  // full: then it is awake already
    }
}

void drain(const Descriptor & reading_end) {
    uint8_t bytes[64];
    while (read(reading_end.get(), bytes, sizeof bytes) > 0) {
    }
}

Readable wait_for(const Descriptor & first, const Descriptor & second, const Descriptor & waker) {
    pollfd waits[] = {{first.get(), POLLIN, 0}, {second.get(), POLLIN, 0}, {waker.get(), POLLIN, 0}};
    while (poll(waits, 3, -1) < 0 && errno == EINTR) {
    }
    return {waits[0].revents != 0, waits[1].revents != 0};
}

bool send_all(const Descriptor & to, const void * data, size_t size, const Limit & limit) {
    const auto * next = static_cast<const uint8_t *>(data);
    while (size > 0) {
        const ssize_t n = send(to.get(), next, size, NO_SIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            next += n;
            size -= static_cast<size_t>(n);
        } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            return false;
        } else if (errno != EINTR && !wait_until(to.get(), POLLOUT, limit)) {
            return false;
        }
    }
    return true;
}

bool receive_all(const Descriptor & from, void * data, size_t size, const Limit & limit) {
    auto * next = static_cast<uint8_t *>(data);
    while (size > 0) {
        const ssize_t n = recv(from.get(), next, size, MSG_DONTWAIT);
        if (n > 0) {
            next += n;
            size -= static_cast<size_t>(n);
        } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            return false;
        } else if (errno != EINTR && !wait_until(from.get(), POLLIN, limit)) {
            return false;
        }
    }
    return true;
}

}  // namespace pytriattn

#else  // _WIN32

namespace pytriattn {

void Descriptor::reset(int fd) { fd_ = fd; }
Descriptor connect_to(const std::string & server) {
    throw triattn::ModelLoadError("the RPC server '" + server +
                                  "' cannot be used: rpc_servers has not been written for Windows yet");
}
std::pair<Descriptor, int> listen_on_loopback() { return std::pair<Descriptor, int>(); }
Descriptor accept_from(const Descriptor &) { return Descriptor(); }
std::pair<Descriptor, Descriptor> make_pipe() { return std::pair<Descriptor, Descriptor>(); }
void wake(const Descriptor &) {}
void drain(const Descriptor &) {}
Readable wait_for(const Descriptor &, const Descriptor &, const Descriptor &) { return {false, false}; }
bool send_all(const Descriptor &, const void *, size_t, const Limit &) { return false; }
bool receive_all(const Descriptor &, void *, size_t, const Limit &) { return false; }

}  // namespace pytriattn

#endif
