// A user's own RoPE settings, checked.
#include "bindings.h"
#include "repr.h"

#include "rope_overrides.h"

#include <algorithm>
#include <utility>

namespace pytriattn {
namespace {

using triattn::RopeOverrides;

const std::pair<const char *, llama_rope_scaling_type> SCALINGS[] = {
    {"", LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED},      {"none", LLAMA_ROPE_SCALING_TYPE_NONE},
    {"linear", LLAMA_ROPE_SCALING_TYPE_LINEAR},     {"yarn", LLAMA_ROPE_SCALING_TYPE_YARN},
    {"longrope", LLAMA_ROPE_SCALING_TYPE_LONGROPE},
};

llama_rope_scaling_type scaling_from_name(const std::string & name) {
    for (const auto & [text, scaling] : SCALINGS) {
        if (name == text) {
            return scaling;
        }
    }
    throw triattn::ContextError("rope_scaling_type is '" + name +
                                "', it must be 'none', 'linear', 'yarn' or 'longrope'");
}

std::string scaling_name(const RopeOverrides & rope) {
    const auto * found = std::find_if(std::begin(SCALINGS), std::end(SCALINGS),
                                      [&](const auto & entry) { return entry.second == rope.scaling; });
    return found->first;
}

RopeOverrides make_rope_overrides(const std::string & scaling, float freq_base, float freq_scale, float yarn_ext_factor,
                                  float yarn_attn_factor, float yarn_beta_fast, float yarn_beta_slow,
                                  uint32_t yarn_orig_ctx) {
    return {scaling_from_name(scaling), freq_base,      freq_scale,     yarn_ext_factor,
            yarn_attn_factor,           yarn_beta_fast, yarn_beta_slow, yarn_orig_ctx};
}

}  // namespace

void add_rope_overrides(py::module_ & m) {
    auto rope =
        py::class_<RopeOverrides>(m, "RopeOverrides",
                                  "RoPE settings in place of the model's own; each default means the model's own.")
            .def(py::init(&make_rope_overrides), py::kw_only(), py::arg("scaling") = "", py::arg("freq_base") = 0.0f,
                 py::arg("freq_scale") = 0.0f, py::arg("yarn_ext_factor") = -1.0f, py::arg("yarn_attn_factor") = -1.0f,
                 py::arg("yarn_beta_fast") = -1.0f, py::arg("yarn_beta_slow") = -1.0f, py::arg("yarn_orig_ctx") = 0)
            .def_property_readonly("scaling", &scaling_name, "'none', 'linear', 'yarn', 'longrope' or ''.")
            .def_readonly("freq_base", &RopeOverrides::freq_base, "Base of the frequencies; 0: the model's.")
            .def_readonly("freq_scale", &RopeOverrides::freq_scale, "Factor of the frequencies; 0: the model's.")
            .def_readonly("yarn_ext_factor", &RopeOverrides::yarn_ext_factor, "YaRN's mix of extrapolation.")
            .def_readonly("yarn_attn_factor", &RopeOverrides::yarn_attn_factor, "YaRN's scale of vectors.")
            .def_readonly("yarn_beta_fast", &RopeOverrides::yarn_beta_fast, "YaRN's upper bound of turns.")
            .def_readonly("yarn_beta_slow", &RopeOverrides::yarn_beta_slow, "YaRN's lower bound of turns.")
            .def_readonly("yarn_orig_ctx", &RopeOverrides::yarn_orig_ctx, "Positions that the model was trained for.");
    add_repr(rope, {"scaling", "freq_base", "freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast",
                    "yarn_beta_slow", "yarn_orig_ctx"});
}

}  // namespace pytriattn
