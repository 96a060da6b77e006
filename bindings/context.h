// A decoder as Python holds it: every method that computes releases the GIL, polls for signals and refuses a second
// thread.
#pragma once

#include "bindings.h"
#include "fork_guard.h"
#include "worker.h"

#include "logits_rows.h"

#include "decoder.h"

#include <optional>
#include <type_traits>

namespace pytriattn {

class Context {
public:
    Context(std::shared_ptr<Model> model, triattn::DecoderParams params, triattn::Stats stats)
        : model_(std::move(model)) {
        recent_errors();
        if (model_->rpc.empty()) {
            params.interrupted = [this] { return is_cancelled_ || poll_(); };
        } else {
            worker_ = std::make_unique<Worker>();
            params.interrupted = [this] { return is_cancelled_ || has_signal_ || model_->rpc.lost(); };
        }
        check_not_forked(params.n_threads, worker_ != nullptr);
        const GilRelease release;
        decoder_ = model_->rpc.guard(
            [&] { return std::make_unique<triattn::Decoder>(model_->model.get(), params, std::move(stats)); });
    }

    // Runs `work` on the decoder without the GIL.
    template <typename F>
    auto run_without_gil(F && work) {
        const BusyGuard guard(busy_, "this context");
        triattn::Decoder & decoder = open_decoder();
        check_not_forked(decoder.params().n_threads, worker_ != nullptr);
        recent_errors();
        try {
            const GilRelease release;
            return model_->rpc.guard([&] { return run_watched([&] { return work(decoder); }); });
        } catch (const triattn::InterruptedError &) {
            poll_.rethrow();
            throw;
        } catch (const ServerLostError &) {
            poll_.rethrow();  // a signal may have been the reason
            throw;
        }
    }

    // Runs `work` on the decoder with the GIL, for what is only looked up.
    template <typename F>
    auto run_with_gil(F && work) {
        const BusyGuard guard(busy_, "this context");
        triattn::Decoder & decoder = open_decoder();
        return model_->rpc.guard([&] { return work(decoder); });
    }

    void close() {
        const BusyGuard guard(busy_, "this context");
        const GilRelease release;
        decoder_.reset();
        worker_.reset();
        model_.reset();
    }

    // From any thread: what is being computed, or will be until the next start(), ends with RequestCancelledError.
    void cancel() { is_cancelled_ = true; }
    void start() { is_cancelled_ = false; }

    // A server's device by the server's address, any other by ggml's name.
    std::string device_name(ggml_backend_dev_t device) const { return model_->rpc.name_of(device); }

    bool closed() const { return decoder_ == nullptr; }
    LogitsRows & logits_rows() { return logits_rows_; }

private:
    // With servers, waiting cannot be interrupted: so another thread waits, and this one looks for signals. The first
    // one ends the computation after its step, a second one gives up the servers.
    template <typename F>
    auto run_watched(F && work) -> decltype(work()) {
        if (!worker_) {
            return work();
        }
        has_signal_ = false;
        const auto watch = [this] {
            if (!has_signal_) {
                has_signal_ = poll_();
            } else if (poll_.has_another()) {
                model_->rpc.give_up();
            }
        };
        if constexpr (std::is_void_v<decltype(work())>) {
            worker_->run([&] { work(); }, watch);
        } else {
            std::optional<decltype(work())> result;
            worker_->run([&] { result.emplace(work()); }, watch);
            return std::move(*result);
        }
    }

    triattn::Decoder & open_decoder() {
        if (!decoder_) {
            throw ClosedError("this context has been closed");
        }
        return *decoder_;
    }

    std::shared_ptr<Model> model_;
    SignalPoll poll_;
    std::unique_ptr<triattn::Decoder> decoder_;
    LogitsRows logits_rows_;
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    std::atomic<bool> is_cancelled_{false}, has_signal_{false};
    std::unique_ptr<Worker> worker_;  // for models with devices of servers
};

// Adds what looks into a context.
void add_inspection(py::class_<Context> & context);
// Adds images to it, and what they need to the module.
void add_images(py::module_ & m, py::class_<Context> & context);

// Throws UnsupportedModelError if there is no cache that can be looked into.
const triattn::KvView & view_of(const triattn::Decoder & decoder);

}  // namespace pytriattn
