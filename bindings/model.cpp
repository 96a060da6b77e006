// Loading a model, its facts and its tokenizer.
#include "fork_guard.h"
#include "repr.h"

#include "kv_view.h"

#include "ggml-cpp.h"
#include "gguf.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

namespace pytriattn {
namespace {

using ModelPtr = std::shared_ptr<Model>;

using Progress = std::optional<py::typing::Callable<py::object(float)>>;

// Called while a model is loaded: with the fraction done, if Python wants it, and to let Ctrl-C through.
class LoadWatch {
public:
    explicit LoadWatch(const Progress & progress) : progress_(progress) {}

    static bool callback(float done, void * self) { return static_cast<LoadWatch *>(self)->report(done); }

    void rethrow() {
        poll_.rethrow();
        if (error_) {
            throw py::error_already_set(*std::exchange(error_, nullptr));
        }
    }

private:
    bool report(float done) {
        if (progress_ && !error_) {
            with_gil([&] {
                try {
                    call_python(*progress_, done);
                } catch (const py::error_already_set & error) {
                    error_ = std::make_unique<py::error_already_set>(error);  // may not cross the C code
                }
            });
        }
        return !error_ && !poll_();
    }

    const Progress & progress_;
    SignalPoll poll_;
    std::unique_ptr<py::error_already_set> error_;
};

llama_load_mode load_mode(bool use_mmap, bool use_mlock) {
    if (use_mlock) {
        return use_mmap ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MLOCK;
    }
    return use_mmap ? LLAMA_LOAD_MODE_AUTO : LLAMA_LOAD_MODE_NONE;
}

// RPC servers first, for the fewest transfers between devices, then local GPUs, as llama.cpp orders them by itself.
std::vector<ggml_backend_dev_t> devices_with(const RpcDevices & rpc) {
    std::vector<ggml_backend_dev_t> devices = rpc.list();
    std::set<std::string> ids;  // one GPU may be seen by two backends
    for (const enum ggml_backend_dev_type type : {GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU}) {
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            ggml_backend_dev_t device = ggml_backend_dev_get(i);
            ggml_backend_dev_props props{};
            if (ggml_backend_dev_type(device) != type) {
                continue;
            }
            ggml_backend_dev_get_props(device, &props);
            if (props.device_id == nullptr || ids.insert(props.device_id).second) {
                devices.push_back(device);
            }
        }
        if (devices.size() > rpc.list().size()) {
            break;  // integrated GPUs only where there are no others
        }
    }
    return devices;
}

void check_devices(const std::vector<ggml_backend_dev_t> & devices, const std::vector<float> & tensor_split) {
    if (devices.size() > llama_max_devices()) {
        throw triattn::ModelLoadError("the RPC servers and this machine have " + std::to_string(devices.size()) +
                                      " devices together, llama.cpp takes " + std::to_string(llama_max_devices()) +
                                      "; name fewer servers");
    }
    if (tensor_split.size() > devices.size()) {
        throw triattn::ModelLoadError("tensor_split has " + std::to_string(tensor_split.size()) +
                                      " numbers, but the RPC servers and this machine have " +
                                      std::to_string(devices.size()) +
                                      " devices (in this order: servers as given, local GPUs)");
    }
}

std::string lost_while_loading(const RpcDevices & rpc) {
    try {
        rpc.check();
    } catch (const ServerLostError & error) {
        return std::string("while the model was loaded, ") + error.what();
    }
    return {};
}

ModelPtr load(const std::filesystem::path & file, int n_gpu_layers, int split_mode, int main_gpu,
              const std::vector<float> & tensor_split, bool use_mmap, bool use_mlock,
              const std::vector<std::string> & rpc_servers, const Progress & progress) {
    const std::string path = native_path(file);
    if (tensor_split.size() > llama_max_devices()) {
        throw triattn::ModelLoadError("tensor_split has " + std::to_string(tensor_split.size()) +
                                      " numbers, more than the " + std::to_string(llama_max_devices()) +
                                      " devices that llama.cpp knows");
    }
    std::vector<float> split = tensor_split;
    split.resize(llama_max_devices(), 0.0f);
    recent_errors();
    LoadWatch watch(progress);
    auto result = std::make_shared<Model>();
    result->path = path;
    check_loading_not_forked();
    {
        const GilRelease release;
        std::vector<ggml_backend_dev_t> devices;
        if (!rpc_servers.empty()) {
            result->rpc = RpcDevices(rpc_servers);
            devices = devices_with(result->rpc);
            check_devices(devices, tensor_split);
        }
        devices.push_back(nullptr);
        llama_model_params params = llama_model_default_params();
        params.devices = rpc_servers.empty() ? nullptr : devices.data();
        params.n_gpu_layers = n_gpu_layers;
        params.split_mode = static_cast<llama_split_mode>(split_mode);
        params.main_gpu = main_gpu;
        params.tensor_split = tensor_split.empty() ? nullptr : split.data();
        params.load_mode = load_mode(use_mmap, use_mlock);
        params.progress_callback = LoadWatch::callback;
        params.progress_callback_user_data = &watch;
        result->model.reset(llama_model_load_from_file(path.c_str(), params));
    }
    watch.rethrow();
    if (result->rpc.lost()) {
        throw triattn::ModelLoadError(lost_while_loading(result->rpc));
    }
    if (!result->model) {
        throw triattn::ModelLoadError("cannot load the model '" + path + "'");
    }
    if (llama_model_has_encoder(result->model.get()) || !llama_model_has_decoder(result->model.get())) {
        throw triattn::UnsupportedModelError("'" + path + "' has an encoder; only decoder models can generate here");
    }
    if (triattn::lacks_recurrent_layers(result->model.get())) {
        throw triattn::UnsupportedModelError(
            "'" + path +
            "' is of an architecture with recurrent layers and has none, which llama.cpp cannot run; add a "
            "recurrent layer, or write it as another architecture");
    }
    return result;
}

std::string meta_text(const Model & model, int index, bool key) {
    const auto get = key ? llama_model_meta_key_by_index : llama_model_meta_val_str_by_index;
    const int n = get(model.model.get(), index, nullptr, 0);
    if (n < 0) {
        return {};
    }
    std::string text(static_cast<size_t>(n) + 1, '\0');
    get(model.model.get(), index, text.data(), text.size());
    text.resize(static_cast<size_t>(n));
    return text;
}

// Bytes that are not UTF-8 become U+FFFD.
py::str lenient_text(const std::string & text) {
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

py::typing::Dict<py::str, py::str> metadata(const Model & model) {
    py::typing::Dict<py::str, py::str> result;
    for (int i = 0; i < llama_model_meta_count(model.model.get()); ++i) {
        result[py::str(meta_text(model, i, true))] = lenient_text(meta_text(model, i, false));
    }
    return result;
}

void check_has_tokenizer(const Model & model) {
    if (llama_vocab_type(model.vocab()) == LLAMA_VOCAB_TYPE_NONE) {
        throw triattn::UnsupportedModelError("this model file has no tokenizer; give and take token ids");
    }
}

std::vector<llama_token> tokenize(const Model & model, const py::bytes & utf8, bool add_special, bool parse_special) {
    check_has_tokenizer(model);
    const std::string text = utf8;
    const GilRelease release;
    if (text.size() > static_cast<size_t>(INT32_MAX) - 16) {
        throw triattn::InvalidTokenError("the text is longer than 2 GiB; tokenize it in pieces");
    }
    const int32_t length = static_cast<int32_t>(text.size());
    std::vector<llama_token> tokens(text.size() + 8);
    int32_t n = llama_tokenize(model.vocab(), text.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()),
                               add_special, parse_special);
    if (n < 0) {
        tokens.resize(static_cast<size_t>(-static_cast<int64_t>(n)));
        n = llama_tokenize(model.vocab(), text.data(), length, tokens.data(), static_cast<int32_t>(tokens.size()),
                           add_special, parse_special);
    }
    if (n < 0) {
        throw triattn::InvalidTokenError("this model's tokenizer could not tokenize the text");
    }
    tokens.resize(static_cast<size_t>(n));
    return tokens;
}

py::bytes piece(const Model & model, llama_token token, bool special) {
    check_has_tokenizer(model);
    if (token < 0 || token >= llama_vocab_n_tokens(model.vocab())) {
        throw triattn::InvalidTokenError("token " + std::to_string(token) + " is not in the vocabulary of " +
                                         std::to_string(llama_vocab_n_tokens(model.vocab())));
    }
    std::string text(32, '\0');
    int32_t n = llama_token_to_piece(model.vocab(), token, text.data(), static_cast<int32_t>(text.size()), 0, special);
    if (n < 0) {
        text.resize(static_cast<size_t>(-n));
        n = llama_token_to_piece(model.vocab(), token, text.data(), static_cast<int32_t>(text.size()), 0, special);
    }
    return {text.data(), static_cast<size_t>(std::max(n, 0))};
}

std::string string_value(const gguf_context * file, const char * key) {
    const int64_t id = gguf_find_key(file, key);
    return id >= 0 && gguf_get_kv_type(file, id) == GGUF_TYPE_STRING ? gguf_get_val_str(file, id) : "";
}

size_t bytes_of_type(gguf_type type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_BOOL:    return 1;
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16:   return 2;
        case GGUF_TYPE_UINT64:
        case GGUF_TYPE_INT64:
        case GGUF_TYPE_FLOAT64: return 8;
        default:                return 4;
    }
}

struct GgufDescription {
    std::string name, architecture;
    std::string content;  // bytes
};

GgufDescription describe_gguf(const std::filesystem::path & file) {
    const std::string path = native_path(file);
    std::string out, name, architecture;
    {
        const GilRelease release;
        recent_errors();
        struct Free {
            void operator()(gguf_context * g) const { gguf_free(g); }
        };
        ggml_context * meta = nullptr;
        const std::unique_ptr<gguf_context, Free> content(
            gguf_init_from_file(path.c_str(), {/*no_alloc*/ true, &meta}));
        const ggml_context_ptr owner(meta);
        if (!content) {
            throw triattn::ModelLoadError("cannot read '" + path + "' as GGUF");
        }
        name = string_value(content.get(), "general.name");
        architecture = string_value(content.get(), "general.architecture");
        const auto add = [&](const void * data, size_t size) { out.append(static_cast<const char *>(data), size); };
        const auto text = [&](const char * value) { add(value, std::strlen(value) + 1); };
        for (int64_t i = 0; i < gguf_get_n_kv(content.get()); ++i) {
            text(gguf_get_key(content.get(), i));
            const gguf_type type = gguf_get_kv_type(content.get(), i);
            text(gguf_type_name(type));
            if (type == GGUF_TYPE_STRING) {
                text(gguf_get_val_str(content.get(), i));
            } else if (type == GGUF_TYPE_ARRAY) {
                const size_t n = gguf_get_arr_n(content.get(), i);
                const gguf_type item = gguf_get_arr_type(content.get(), i);
                text(gguf_type_name(item));
                add(&n, sizeof n);
                if (item == GGUF_TYPE_STRING) {
                    for (size_t j = 0; j < n; ++j) {
                        text(gguf_get_arr_str(content.get(), i, j));
                    }
                } else {
                    add(gguf_get_arr_data(content.get(), i), n * bytes_of_type(item));
                }
            } else {
                add(gguf_get_val_data(content.get(), i), bytes_of_type(type));
            }
        }
        for (ggml_tensor * t = ggml_get_first_tensor(meta); t != nullptr; t = ggml_get_next_tensor(meta, t)) {
            text(t->name);
            text(ggml_type_name(t->type));
            add(t->ne, sizeof t->ne);
        }
    }
    return {std::move(name), std::move(architecture), std::move(out)};
}

}  // namespace

void add_model(py::module_ & m) {
    py::class_<Model, ModelPtr>(m, "Model")
        .def(py::init(&load), py::arg("path"), py::arg("n_gpu_layers") = -1, py::kw_only(),
             py::arg("split_mode") = static_cast<int>(LLAMA_SPLIT_MODE_LAYER), py::arg("main_gpu") = 0,
             py::arg_v("tensor_split", std::vector<float>(), "()"), py::arg("use_mmap") = true,
             py::arg("use_mlock") = false, py::arg_v("rpc_servers", std::vector<std::string>(), "()"),
             py::arg("progress") = py::none())
        .def_property_readonly("metadata", &metadata)
        .def_property_readonly("description",
                               [](const Model & s) {
                                   char text[256];
                                   llama_model_desc(s.model.get(), text, sizeof text);
                                   return std::string(text);
                               })
        .def_property_readonly("n_vocab", [](const Model & s) { return llama_vocab_n_tokens(s.vocab()); })
        .def_property_readonly("n_layer", [](const Model & s) { return llama_model_n_layer(s.model.get()); })
        .def_property_readonly("n_layer_nextn",
                               [](const Model & s) { return llama_model_n_layer_nextn(s.model.get()); })
        .def_property_readonly("n_embd", [](const Model & s) { return llama_model_n_embd(s.model.get()); })
        .def_property_readonly("n_head", [](const Model & s) { return llama_model_n_head(s.model.get()); })
        .def_property_readonly("n_head_kv", [](const Model & s) { return llama_model_n_head_kv(s.model.get()); })
        .def_property_readonly("n_swa", [](const Model & s) { return llama_model_n_swa(s.model.get()); })
        .def_property_readonly("n_ctx_train", [](const Model & s) { return llama_model_n_ctx_train(s.model.get()); })
        .def_property_readonly("bos", [](const Model & s) { return llama_vocab_bos(s.vocab()); })
        .def_property_readonly("eos", [](const Model & s) { return llama_vocab_eos(s.vocab()); })
        .def_property_readonly("newline", [](const Model & s) { return llama_vocab_nl(s.vocab()); })
        .def_property_readonly("add_bos", [](const Model & s) { return llama_vocab_get_add_bos(s.vocab()); })
        .def_property_readonly("has_vocab",
                               [](const Model & s) { return llama_vocab_type(s.vocab()) != LLAMA_VOCAB_TYPE_NONE; })
        .def_property_readonly("has_learned_positions",
                               [](const Model & s) { return triattn::has_learned_positions(s.model.get()); })
        .def_property_readonly("long_rope_threshold",
                               [](const Model & s) { return triattn::long_rope_threshold(s.model.get()); })
        .def_property_readonly("has_long_rope", [](const Model & s) { return triattn::has_long_rope(s.model.get()); })
        .def("use_long_rope", [](Model & s) { triattn::use_long_rope(s.model.get()); })
        .def(
            "is_end", [](const Model & s, llama_token token) { return llama_vocab_is_eog(s.vocab(), token); },
            py::arg("token"))
        .def("tokenize", &tokenize, py::arg("text"), py::arg("add_special"), py::arg("parse_special"))
        .def("piece", &piece, py::arg("token"), py::arg("special"));
    auto description =
        py::class_<GgufDescription>(m, "GgufDescription", "What a GGUF file says of itself.")
            .def_property_readonly(
                "name", [](const GgufDescription & self) { return lenient_text(self.name); },
                "The model's name; empty if the file has none.")
            .def_property_readonly(
                "architecture", [](const GgufDescription & self) { return lenient_text(self.architecture); },
                "The model's architecture; empty if the file has none.")
            .def_property_readonly(
                "content", [](const GgufDescription & self) { return py::bytes(self.content); },
                "Every key with its value, and every tensor's name, type and shape. Two files with equal content hold "
                "the same model, up to the values of its weights.");
    add_repr(description, {"name", "architecture"});
    m.def("describe_gguf", &describe_gguf, py::arg("path"), "Read the header of a GGUF file, without its weights.");
}

}  // namespace pytriattn
