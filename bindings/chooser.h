// What a context's cache holds, as Python reads it; and a Python callable that chooses from it.
#pragma once

#include "context.h"

#include "eviction_view.h"

namespace pytriattn {

// A view that Python may keep longer than it is valid: then reading raises an error.
class SharedView {
public:
    // Of an eviction that is going on: valid until end().
    explicit SharedView(const triattn::EvictionView & view);

    // Of a context between its steps: valid until its cache changes.
    SharedView(const py::object & context, int32_t seq);

    void end() { current_ = nullptr; }

    // Runs `work` on the view. It must not touch Python objects: between steps it runs without the GIL.
    template <typename F>
    auto read(F && work) const {
        if (context_ != nullptr) {
            return context_->run_without_gil([&](triattn::Decoder & decoder) {
                check_version(decoder);
                return work(*own_);
            });
        }
        return work(current());
    }

    const std::vector<triattn::KvLayer> & layers() const { return layers_; }

    int32_t seq = 0, position = 0;
    size_t n_keys = 0, n_keep = 0;

private:
    void take_facts(const triattn::EvictionView & view);
    const triattn::EvictionView & current() const;               // throws ClosedError after end()
    void check_version(const triattn::Decoder & decoder) const;  // throws ContextError

    const triattn::EvictionView * current_ = nullptr;  // of an eviction
    std::optional<triattn::EvictionView> own_;         // of a context
    py::object owner_;
    Context * context_ = nullptr;
    int64_t version_ = 0;
    std::vector<triattn::KvLayer> layers_;
};

// A Python callable as the engine's Chooser. Copies share the callable, so that they can be made and dropped without
// the GIL.
class PythonChooser {
public:
    using Callable = py::typing::Callable<py::typing::Iterable<array<bool>>(std::shared_ptr<SharedView>)>;

    explicit PythonChooser(Callable callable);
    triattn::Kept operator()(const triattn::EvictionView & view) const;
    const py::object & callable() const { return *callable_; }

private:
    triattn::Kept choose(const triattn::EvictionView & view) const;

    std::shared_ptr<const py::object> callable_;
};

}  // namespace pytriattn
