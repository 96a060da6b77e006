// Giving up Python's GIL and taking it again, safe for daemon threads.
//
// While an interpreter ends, Python before 3.14 ends every other thread that wants the GIL: it unwinds the thread's stack
// (pthread_exit). Our frames cannot be unwound: destructors may not throw, and they drop Python objects without the GIL.
// So a thread that is being ended waits here until the process is gone, as Python 3.14 has it wait. Use nothing else of
// pybind11's to release or acquire the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

namespace pytriattn {

[[noreturn]] inline void wait_for_ever() {
    while (true) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

// Runs `work`; if Python ends this thread meanwhile, waits for ever. What `work` owns is dropped before: where it calls
// Python, see call_python().
template <typename F>
auto wait_if_ended(F && work) -> decltype(work()) {
    try {
        return work();
    } catch (const std::exception &) {
        throw;
    } catch (...) {  // everything that is thrown here is a std::exception, but for the unwinding
        wait_for_ever();
    }
}

// Has no GIL while it lives. It must be made with the GIL.
class GilRelease {
public:
    GilRelease() {
        pybind11::detail::get_internals();  // so that a thread without the GIL finds them
        state_ = PyEval_SaveThread();
    }
    ~GilRelease() {
        wait_if_ended([this] { PyEval_RestoreThread(state_); });
    }
    GilRelease(const GilRelease &) = delete;
    GilRelease & operator=(const GilRelease &) = delete;

private:
    PyThreadState * state_;
};

// Runs `work` with the GIL, from any thread, with or without it.
template <typename F>
auto with_gil(F && work) -> decltype(work()) {
    return wait_if_ended([&]() -> decltype(work()) {
        const pybind11::gil_scoped_acquire gil;
        return wait_if_ended(work);  // before the GIL is given back, which an ended thread no longer has
    });
}

// Calls a Python object from inside with_gil(): the thread may be ended in the callable, and then the arguments stay.
template <typename... Args>
pybind11::object call_python(const pybind11::object & callable, Args &&... args) {
    const pybind11::tuple arguments = pybind11::make_tuple(std::forward<Args>(args)...);
    PyObject * result = wait_if_ended([&] { return PyObject_CallObject(callable.ptr(), arguments.ptr()); });
    if (result == nullptr) {
        throw pybind11::error_already_set();
    }
    return pybind11::reinterpret_steal<pybind11::object>(result);
}

}  // namespace pytriattn
