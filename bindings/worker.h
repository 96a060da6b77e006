// A thread that computes while the thread that asked for it stays able to take notice of something else.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace pytriattn {

class Worker {
public:
    Worker() : thread_([this] { loop(); }) {}
    ~Worker() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            must_end_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    Worker(const Worker &) = delete;
    Worker & operator=(const Worker &) = delete;

    // Runs `job` and returns when it has ended, with its exception if it threw one. Meanwhile calls `watch` every few
    // hundredths of a second.
    void run(std::function<void()> job, const std::function<void()> & watch) {
        std::unique_lock<std::mutex> lock(mutex_);
        job_ = std::move(job);
        changed_.notify_all();
        while (!changed_.wait_for(lock, std::chrono::milliseconds(50), [this] { return !job_; })) {
            lock.unlock();
            watch();
            lock.lock();
        }
        if (error_) {
            std::rethrow_exception(std::exchange(error_, nullptr));
        }
    }

private:
    void loop() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            changed_.wait(lock, [this] { return must_end_ || job_; });
            if (must_end_) {
                return;
            }
            lock.unlock();
            try {
                job_();
            } catch (...) {
                error_ = std::current_exception();
            }
            lock.lock();
            job_ = nullptr;
            changed_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> job_;
    std::exception_ptr error_;
    bool must_end_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace pytriattn
