// What RoPE does to a layer, as properties of the Python objects that tell it.
#pragma once

#include "bindings.h"

namespace pytriattn {

// For a class with a member `rope`.
template <typename T>
void add_rope_properties(py::class_<T> & type) {
    type.def_property_readonly("head_dim", [](const T & s) { return s.rope.head_dim; })
        .def_property_readonly("rot_begin", [](const T & s) { return s.rope.rot_begin; })
        .def_property_readonly("n_rot", [](const T & s) { return s.rope.n_rot; })
        .def_property_readonly("interleaved", [](const T & s) { return s.rope.interleaved; })
        .def_property_readonly("scale", [](const T & s) { return s.rope.scale; })
        .def_property_readonly("omega", [](const T & s) { return to_array(s.rope.omega, {s.rope.n_bands()}); })
        .def_property_readonly("band_dims", [](const T & s) {
            std::vector<int32_t> dims;
            for (int f = 0; f < s.rope.n_bands(); ++f) {
                const auto [a, b] = s.rope.dims(f);
                dims.push_back(a);
                dims.push_back(b);
            }
            return to_array(dims, {s.rope.n_bands(), 2});
        });
}

}  // namespace pytriattn
