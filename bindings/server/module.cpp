// Upstream's server as a module of its own, which `import pytriattn` does not load.
#include "bounded_server.h"
#include "decoder_params.h"
#include "gil.h"

#include "arg.h"
#include "common.h"

#include "ggml.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

int llama_server(int argc, char ** argv);

namespace pytriattn::server {
namespace {

namespace py = pybind11;

std::vector<char *> pointers(std::vector<std::string> & arguments) {
    std::vector<char *> argv;
    for (std::string & argument : arguments) {
        argv.push_back(argument.data());
    }
    argv.push_back(nullptr);
    return argv;
}

// What upstream's own flags and environment variables say; none: they are wrong, and it has said why.
std::optional<common_params> parse(std::vector<std::string> arguments) {
    common_params params;
    common_init();
    const bool is_valid = common_params_parse(static_cast<int>(arguments.size()), pointers(arguments).data(), params,
                                              LLAMA_EXAMPLE_SERVER);
    return is_valid ? std::optional(std::move(params)) : std::nullopt;
}

const char * flash_attention_name(llama_flash_attn_type type) {
    return type == LLAMA_FLASH_ATTN_TYPE_AUTO ? "auto" : type == LLAMA_FLASH_ATTN_TYPE_ENABLED ? "on" : "off";
}

void add_params(py::module_ & m) {
    using Params = common_params;
    py::class_<Params>(m, "Params", "What the flags and environment variables of llama-server say.")
        .def_property_readonly(
            "model", [](const Params & self) { return self.model.path; }, "A path; '': none.")
        .def_property_readonly(
            "hf_repo", [](const Params & self) { return self.model.hf_repo; }, "'': none.")
        .def_property_readonly(
            "hf_file", [](const Params & self) { return self.model.hf_file; }, "'': none.")
        .def_readonly("hosts", &Params::hostnames, "Addresses to listen on.")
        .def_readonly("n_ctx", &Params::n_ctx, "Positions; 0: the model's.")
        .def_readonly("n_batch", &Params::n_batch)
        .def_readonly("n_ubatch", &Params::n_ubatch)
        .def_property_readonly(
            "n_slots", [](const Params & self) { return self.n_parallel < 0 ? 4 : self.n_parallel; },
            "Texts that are read at once.")
        .def_readonly("n_gpu_layers", &Params::n_gpu_layers, "Negative: as many as fit.")
        .def_property_readonly("n_threads", [](const Params & self) { return self.cpuparams.n_threads; })
        .def_property_readonly("type_k", [](const Params & self) { return ggml_type_name(self.cache_type_k); })
        .def_property_readonly("type_v", [](const Params & self) { return ggml_type_name(self.cache_type_v); })
        .def_property_readonly(
            "flash_attn", [](const Params & self) { return flash_attention_name(self.flash_attn_type); },
            "'auto', 'on' or 'off'.")
        .def_property_readonly("rope_scaling_type", [](const Params & self) { return int(self.rope_scaling_type); })
        .def_readonly("rope_freq_base", &Params::rope_freq_base)
        .def_readonly("rope_freq_scale", &Params::rope_freq_scale)
        .def_readonly("yarn_ext_factor", &Params::yarn_ext_factor)
        .def_readonly("yarn_attn_factor", &Params::yarn_attn_factor)
        .def_readonly("yarn_beta_fast", &Params::yarn_beta_fast)
        .def_readonly("yarn_beta_slow", &Params::yarn_beta_slow)
        .def_readonly("yarn_orig_ctx", &Params::yarn_orig_ctx);
    m.def("parse", &parse, py::arg("arguments"),
          "Reads `arguments` [program, flag, ...]. None: one of them is wrong, and standard error says why. Ends the "
          "process where they ask for help.");
}

int run(std::vector<std::string> arguments, std::optional<triattn::EvictionConfig> eviction,
        std::optional<triattn::Stats> stats, int64_t n_ctx_train, int32_t n_swa, const std::string & stats_path,
        const std::optional<std::string> & type_k, const std::optional<std::string> & type_v, bool protects_prompt) {
    const auto type_of = [](const std::optional<std::string> & name) {
        return name ? std::optional(triattn::cache_type_from_name(*name)) : std::nullopt;
    };
    set_cache_types(type_of(type_k), type_of(type_v));
    if (eviction) {
        set_budget(BudgetSettings{*eviction, stats.value_or(triattn::Stats{}), n_ctx_train, n_swa, stats_path,
                                  protects_prompt});
    }
    std::vector<char *> argv = pointers(arguments);
    int status = 0;
    {
        const GilRelease release;
        status = llama_server(static_cast<int>(arguments.size()), argv.data());
    }
    if (const std::exception_ptr failure = take_error()) {
        std::rethrow_exception(failure);
    }
    return status;
}

}  // namespace
}  // namespace pytriattn::server

PYBIND11_MODULE(_server, m) {
    namespace py = pybind11;
    m.doc() = "llama.cpp's server, within a budget.";
    pytriattn::server::add_params(m);
    m.def("run", &pytriattn::server::run, py::arg("arguments"), py::kw_only(), py::arg("eviction") = py::none(),
          py::arg("stats") = py::none(), py::arg("n_ctx_train") = 0, py::arg("n_swa") = 0, py::arg("stats_path") = "",
          py::arg("type_k") = py::none(), py::arg("type_v") = py::none(), py::arg("protects_prompt") = false,
          "Runs the server until it is stopped; once a process. `arguments` [program, flag, ...] are llama-server's. "
          "Returns its exit code. Raises what kept it from making its context.");
    m.def("set_threads", &pytriattn::server::set_threads, py::arg("n_threads"),
          "Steps are computed with this many CPU threads from now on; any thread may say so. 0: as the flags say.");
}
