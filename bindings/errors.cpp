// C++ errors become the Python types of pytriattn/errors.py, with what llama.cpp logged about them.
#include "images.h"

#include <chrono>

namespace pytriattn {
namespace {

void raise(const char * type, const std::string & message) {
    const py::object cls = py::module_::import("pytriattn.errors").attr(type);
    // llama.cpp's part may be cut within a character
    const auto text = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
    PyErr_SetObject(cls.ptr(), text.ptr());
}

void translate(std::exception_ptr pointer) {
    try {
        if (pointer) {
            std::rethrow_exception(pointer);
        }
    } catch (const triattn::ModelLoadError & e) {
        raise("ModelLoadError", e.what() + recent_errors());
    } catch (const triattn::ContextError & e) {
        raise("ContextError", e.what() + recent_errors());
    } catch (const triattn::DecodeError & e) {
        raise("DecodeError", e.what() + recent_errors());
    } catch (const triattn::UnsupportedModelError & e) {
        raise("UnsupportedModelError", e.what());
    } catch (const triattn::BudgetError & e) {
        raise("BudgetError", e.what());
    } catch (const triattn::StatsError & e) {
        raise("StatsError", e.what());
    } catch (const triattn::ContextFullError & e) {
        raise("ContextFullError", e.what());
    } catch (const triattn::InvalidTokenError & e) {
        raise("InvalidTokenError", e.what());
    } catch (const ServerLostError & e) {
        raise("ServerLostError", e.what());
    } catch (const ClosedError & e) {
        raise("ClosedError", e.what());
    } catch (const GrammarError & e) {
        raise("GrammarError", e.what());
    } catch (const ImageError & e) {
        raise("ImageError", e.what());
    } catch (const ChatError & e) {
        raise("ChatError", e.what());
    } catch (const triattn::InterruptedError & e) {
        raise("RequestCancelledError", e.what());
    } catch (const BackendError & e) {
        raise("BackendError", e.what() + recent_errors());
    } catch (const BusyError & e) {
        raise("BusyError", e.what());
    } catch (const triattn::Error & e) {
        raise("TriAttnError", e.what() + recent_errors());
    }
}

}  // namespace

void add_errors(py::module_ &) { py::register_exception_translator(&translate); }

bool SignalPoll::operator()() {
    if (pending_) {
        return true;
    }
    // Taking the GIL for every graph node would cost more than the nodes.
    const int64_t now =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    if (now - last_ns_ < 50'000'000) {
        return false;
    }
    last_ns_ = now;
    with_gil([this] {
        if (PyErr_CheckSignals() != 0) {
            pending_ = std::make_unique<py::error_already_set>();
        }
    });
    return pending_ != nullptr;
}

bool SignalPoll::has_another() {
    return with_gil([] {
        const bool is_raised = PyErr_CheckSignals() != 0;
        PyErr_Clear();
        return is_raised;
    });
}

void SignalPoll::rethrow() {
    if (pending_) {
        const std::unique_ptr<py::error_already_set> error = std::move(pending_);
        throw py::error_already_set(*error);
    }
}

}  // namespace pytriattn
