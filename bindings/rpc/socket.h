// The few things that the relay of link.cpp needs of sockets. POSIX; on Windows connect_to() refuses.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace pytriattn {

// A file descriptor of a socket or a pipe, closed at the end.
class Descriptor {
public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor && other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor & operator=(Descriptor && other) noexcept {
        reset(std::exchange(other.fd_, -1));
        return *this;
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor & operator=(const Descriptor &) = delete;

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    void reset(int fd = -1);

private:
    int fd_;
};

// Connects to "host:port" within a few seconds. A host that vanishes later is noticed within half a minute.
// Throws ModelLoadError naming the server, the system's reason and the remedy.
Descriptor connect_to(const std::string & server);

// A socket that listens on 127.0.0.1, and its port, chosen by the system. Throws Error.
std::pair<Descriptor, int> listen_on_loopback();
Descriptor accept_from(const Descriptor & listener);  // an empty one if that fails

// A pipe to end waiting with: its reading and its writing end. Throws Error.
std::pair<Descriptor, Descriptor> make_pipe();
void wake(const Descriptor & writing_end);
void drain(const Descriptor & reading_end);

// Waits until something can be read (or has ended) in at least one. Tells which; the second may be an empty descriptor.
struct Readable { bool first, second; };
Readable wait_for(const Descriptor & first, const Descriptor & second, const Descriptor & waker);

// What limits waiting: something to read in `waker`, or time (negative: any).
struct Limit {
    const Descriptor * waker = nullptr;
    int milliseconds = -1;
};

// Whether all bytes went through; false: the other side has ended, or the limit was met.
bool send_all(const Descriptor & to, const void * data, size_t size, const Limit & limit = {});
bool receive_all(const Descriptor & from, void * data, size_t size, const Limit & limit = {});

}  // namespace pytriattn
