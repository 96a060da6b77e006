// A user's own RoPE settings, checked.
#include "bindings.h"

#include "rope_overrides.h"

namespace pytriattn {
namespace {

triattn::RopeOverrides rope_overrides(const std::string & scaling, float freq_base, float freq_scale,
                                      float yarn_ext_factor, float yarn_attn_factor, float yarn_beta_fast,
                                      float yarn_beta_slow, uint32_t yarn_orig_ctx) {
    triattn::RopeOverrides rope{LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
                                freq_base,
                                freq_scale,
                                yarn_ext_factor,
                                yarn_attn_factor,
                                yarn_beta_fast,
                                yarn_beta_slow,
                                yarn_orig_ctx};
    if (scaling == "none")
        rope.scaling = LLAMA_ROPE_SCALING_TYPE_NONE;
    else if (scaling == "linear")
        rope.scaling = LLAMA_ROPE_SCALING_TYPE_LINEAR;
    else if (scaling == "yarn")
        rope.scaling = LLAMA_ROPE_SCALING_TYPE_YARN;
    else if (scaling == "longrope")
        rope.scaling = LLAMA_ROPE_SCALING_TYPE_LONGROPE;
    else if (!scaling.empty()) {
        throw triattn::ContextError("rope_scaling_type is '" + scaling +
                                    "', it must be 'none', 'linear', 'yarn' or 'longrope'");
    }
    return rope;
}

}  // namespace

void add_rope_overrides(py::module_ & m) {
    py::class_<triattn::RopeOverrides>(m, "RopeOverrides")
        .def(py::init(&rope_overrides), py::kw_only(), py::arg("scaling") = "", py::arg("freq_base") = 0.0f,
             py::arg("freq_scale") = 0.0f, py::arg("yarn_ext_factor") = -1.0f, py::arg("yarn_attn_factor") = -1.0f,
             py::arg("yarn_beta_fast") = -1.0f, py::arg("yarn_beta_slow") = -1.0f, py::arg("yarn_orig_ctx") = 0);
}

}  // namespace pytriattn
