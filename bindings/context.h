// A decoder as Python holds it: every method that computes releases the GIL, polls for signals and refuses a second thread.
#pragma once

#include "bindings.h"

#include "logits_rows.h"

#include "decoder.h"

namespace pytriattn {

class Context {
public:
    Context(std::shared_ptr<Model> model, triattn::DecoderParams params, triattn::Stats stats) : model_(std::move(model)) {
        recent_errors();
        params.interrupted = [this] { return is_cancelled_ || model_->rpc.lost() || poll_(); };
        const py::gil_scoped_release release;
        decoder_ = model_->rpc.guard([&] { return std::make_unique<triattn::Decoder>(model_->model.get(), params, std::move(stats)); });
    }

    // Runs `work` on the decoder without the GIL.
    template <typename F>
    auto compute(F && work) {
        const Use use(busy_, "this context");
        triattn::Decoder & decoder = open();
        recent_errors();
        try {
            const py::gil_scoped_release release;
            return model_->rpc.guard([&] { return work(decoder); });
        } catch (const triattn::InterruptedError &) {
            poll_.rethrow();
            throw;
        }
    }

    // Runs `work` on the decoder with the GIL, for what is only looked up.
    template <typename F>
    auto look(F && work) {
        const Use use(busy_, "this context");
        triattn::Decoder & decoder = open();
        return model_->rpc.guard([&] { return work(decoder); });
    }

    void close() {
        const Use use(busy_, "this context");
        const py::gil_scoped_release release;
        decoder_.reset();
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
    triattn::Decoder & open() {
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
    std::atomic<bool> is_cancelled_{false};
};

// Adds what only looks into a context.
void add_inspection(py::module_ & m, py::class_<Context> & context);

}  // namespace pytriattn
