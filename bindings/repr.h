// How objects of the bindings show themselves: by the names and values of their attributes.
#pragma once

#include "bindings.h"

namespace pytriattn {

// "Class(first=1, second='x')".
std::string describe_attributes(const py::object & object, const std::vector<std::string> & names);

// Gives a class a __repr__ of these attributes.
template <typename Class>
void add_repr(Class & type, std::vector<std::string> names) {
    type.def("__repr__",
             [names = std::move(names)](const py::object & self) { return describe_attributes(self, names); });
}

}  // namespace pytriattn
