// A loop over independent pieces of host work, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace triattn {

// Threads worth starting for work on so many numbers: starting one costs as much as some thousands of them.
inline int threads_for(size_t n_numbers, int n_threads) {
    constexpr size_t PER_THREAD = 1 << 15;
    return static_cast<int>(std::min(static_cast<size_t>(std::max(n_threads, 1)), n_numbers / PER_THREAD + 1));
}

// Calls work(i) for every i below n, from up to n_threads threads, this one among them. Returns when all have ended;
// throws the first exception that one of them has thrown.
template <typename Work>
void parallel_for(size_t n, int n_threads, const Work & work) {
    std::atomic<size_t> next{0};
    std::exception_ptr error;
    std::mutex mutex;
    const auto run = [&] {
        for (size_t i = next++; i < n; i = next++) {
            try {
                work(i);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mutex);
                error = error ? error : std::current_exception();
            }
        }
    };
    const size_t n_helpers = std::min(n, static_cast<size_t>(std::max(n_threads, 1))) - std::min<size_t>(n, 1);
    std::vector<std::thread> threads;
    threads.reserve(n_helpers);
    try {
        for (size_t i = 0; i < n_helpers; ++i) {
            threads.emplace_back(run);
        }
    } catch (const std::system_error &) {
        // the system gives no more threads: those that run do the work
    }
    run();
    for (std::thread & thread : threads) {
        thread.join();
    }
    if (error) {
        std::rethrow_exception(error);
    }
}

}  // namespace triattn
