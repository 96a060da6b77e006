// Classes that Python's garbage collector looks into: without it an object that a callable of the user refers to, and
// that holds the callable, is never freed.
#pragma once

#include "bindings.h"

namespace pytriattn {

// Makes `T` such a class. `T::held` returns the Python objects that it owns (null ones too), `T::drop_held` drops them.
template <typename T>
py::custom_type_setup collected() {
    return py::custom_type_setup([](PyHeapTypeObject * heap_type) {
        PyTypeObject & type = heap_type->ht_type;
        type.tp_flags |= Py_TPFLAGS_HAVE_GC;
        type.tp_traverse = [](PyObject * self, visitproc visit, void * arg) {
            Py_VISIT(Py_TYPE(self));
            if (py::detail::is_holder_constructed(self)) {
                for (PyObject * object : py::cast<T &>(py::handle(self)).held()) {
                    Py_VISIT(object);
                }
            }
            return 0;
        };
        type.tp_clear = [](PyObject * self) {
            if (py::detail::is_holder_constructed(self)) {
                py::cast<T &>(py::handle(self)).drop_held();
            }
            return 0;
        };
    });
}

}  // namespace pytriattn
