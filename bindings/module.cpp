#include "bindings.h"

#include "ggml-backend.h"

namespace pytriattn {
namespace {

// Loads every backend module in `directory`, and only there; the best CPU variant for this machine.
void load_backends(const std::string & directory) {
    ggml_backend_load_all_from_path(directory.c_str());
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
        throw triattn::Error("no CPU backend for this machine in '" + directory + "'");
    }
    llama_backend_init();
}

}  // namespace
}  // namespace pytriattn

PYBIND11_MODULE(_core, m) {
    using namespace pytriattn;
    m.doc() = "The compiled part of pytriattn. Use the package's own classes; this interface may change.";
    m.attr("LLAMA_CPP_COMMIT") = PYTRIATTN_LLAMA_COMMIT;
    add_errors(m);
    add_log(m);
    m.def("load_backends", &load_backends, py::arg("directory"));
    m.def("system_info", [] { return std::string(llama_print_system_info()); });
    m.def("devices", [] {
        std::vector<std::pair<std::string, std::string>> result;
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            ggml_backend_dev_t device = ggml_backend_dev_get(i);
            result.emplace_back(ggml_backend_dev_name(device), ggml_backend_dev_description(device));
        }
        return result;
    });
    add_model(m);
    add_rope_overrides(m);
    add_stats(m);
    add_engine(m);
    add_sampler(m);
    add_chat(m);
    add_context(m);
    add_adapters(m);
    add_reference_loop(m);
}
