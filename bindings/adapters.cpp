// LoRA adapters, and embeddings of texts.
#include "context.h"

#include "rope_overrides.h"

namespace pytriattn {
namespace {

// An adapter belongs to a model, which outlives it.
class Lora {
public:
    Lora(std::shared_ptr<Model> model, const std::filesystem::path & file) : model_(std::move(model)) {
        const std::string path = native_path(file);
        recent_errors();
        {
            const GilRelease release;
            model_->rpc.guard([&] { adapter_.reset(llama_adapter_lora_init(model_->model.get(), path.c_str())); });
        }
        if (!adapter_) {
            throw triattn::ModelLoadError("cannot load the LoRA adapter '" + path + "'");
        }
    }
    llama_adapter_lora * get() const { return adapter_.get(); }

private:
    std::shared_ptr<Model> model_;
    llama_adapter_lora_ptr adapter_;
};

// An adapter with the factor by which it counts.
struct ScaledLora {
    std::shared_ptr<Lora> lora;
    float scale;
};
using ScaledLoras = std::vector<ScaledLora>;

void apply(const ScaledLoras & loras, llama_context * context) {
    std::vector<llama_adapter_lora *> adapters;
    std::vector<float> scales;
    for (const ScaledLora & scaled : loras) {
        adapters.push_back(scaled.lora->get());
        scales.push_back(scaled.scale);
    }
    if (llama_set_adapters_lora(context, adapters.data(), adapters.size(), scales.data()) != 0) {
        throw triattn::ContextError("llama.cpp could not apply the LoRA adapters");
    }
}

void set_loras(Context & context, const ScaledLoras & loras) {
    context.run_with_gil(
        [&](triattn::Decoder & d) { d.for_each_context([loras](llama_context * ctx) { apply(loras, ctx); }); });
}

enum llama_pooling_type pooling_of(const std::string & name) {
    if (name == "mean") return LLAMA_POOLING_TYPE_MEAN;
    if (name == "last") return LLAMA_POOLING_TYPE_LAST;
    if (name == "cls") return LLAMA_POOLING_TYPE_CLS;
    if (name == "none") return LLAMA_POOLING_TYPE_NONE;
    throw triattn::ContextError("pooling is '" + name + "', it must be 'mean', 'last', 'cls' or 'none'");
}

// Embeddings of texts, one after the other, in a context of their own: [1, n_embd] each, or [n_tokens, n_embd] without
// pooling.
std::vector<array<float>> embed(const Model & model, const std::vector<std::vector<llama_token>> & texts,
                                const std::string & pooling, int n_threads, const triattn::RopeOverrides & rope,
                                const ScaledLoras & loras) {
    size_t longest = 1;
    for (const auto & text : texts) {
        longest = std::max(longest, text.size());
    }
    const enum llama_pooling_type kind = pooling_of(pooling);
    const int32_t n_embd = llama_model_n_embd_out(model.model.get());
    std::vector<std::vector<float>> rows;
    check_not_forked(n_threads);
    recent_errors();
    SignalPoll poll;
    {
        const GilRelease release;
        llama_context_params params = llama_context_default_params();
        // a text has to be in one step for its embeddings to be pooled
        params.n_ctx = params.n_batch = params.n_ubatch = static_cast<uint32_t>(longest);
        params.n_threads = params.n_threads_batch = n_threads;
        params.embeddings = true;
        params.pooling_type = kind;
        params.no_perf = true;
        params.abort_callback = [](void * p) { return (*static_cast<SignalPoll *>(p))(); };
        params.abort_callback_data = &poll;
        triattn::apply(rope, params);
        const llama_context_ptr ctx(llama_init_from_model(model.model.get(), params));
        if (!ctx) {
            throw triattn::ContextError("llama.cpp could not make a context for embeddings");
        }
        apply(loras, ctx.get());
        for (std::vector<llama_token> text : texts) {
            llama_memory_clear(llama_get_memory(ctx.get()), true);
            const int32_t n = static_cast<int32_t>(text.size());
            llama_batch batch = llama_batch_get_one(text.data(), n);
            std::vector<int8_t> wanted(text.size(), 1);
            batch.logits = wanted.data();
            const int status = llama_decode(ctx.get(), batch);
            if (status != 0) {
                break;
            }
            rows.emplace_back();
            for (int32_t i = 0; i < (kind == LLAMA_POOLING_TYPE_NONE ? n : 1); ++i) {
                const float * values = kind == LLAMA_POOLING_TYPE_NONE ? llama_get_embeddings_ith(ctx.get(), i)
                                                                       : llama_get_embeddings_seq(ctx.get(), 0);
                if (values == nullptr) {
                    throw triattn::DecodeError("llama.cpp gave no embeddings");
                }
                rows.back().insert(rows.back().end(), values, values + n_embd);
            }
        }
    }
    poll.rethrow();
    if (rows.size() != texts.size()) {
        throw triattn::DecodeError("llama.cpp could not decode a text for its embeddings");
    }
    std::vector<array<float>> result;
    for (std::vector<float> & values : rows) {
        const auto n = static_cast<py::ssize_t>(values.size()) / n_embd;
        result.push_back(to_array(std::move(values), {n, n_embd}));
    }
    return result;
}

}  // namespace

void add_adapters(py::module_ & m) {
    py::class_<Lora, std::shared_ptr<Lora>>(m, "Lora", "A LoRA adapter, loaded for one model.")
        .def(py::init<std::shared_ptr<Model>, const std::filesystem::path &>(), py::arg("model"), py::arg("path"));
    py::class_<ScaledLora>(m, "ScaledLora", "An adapter with the factor by which it counts.")
        .def(py::init([](std::shared_ptr<Lora> lora, float scale) { return ScaledLora{std::move(lora), scale}; }),
             py::arg("lora").none(false), py::arg("scale"))
        .def_readonly("lora", &ScaledLora::lora, "The adapter.")
        .def_readonly("scale", &ScaledLora::scale, "The factor; 1 applies the adapter as it was trained.");
    m.def("set_loras", &set_loras, py::arg("context"), py::arg("loras"));
    m.def(
        "embed",
        [](const Model & model, const std::vector<std::vector<llama_token>> & texts, const std::string & pooling,
           int n_threads, const triattn::RopeOverrides & rope, const ScaledLoras & loras) {
            return model.rpc.guard([&] { return embed(model, texts, pooling, n_threads, rope, loras); });
        },
        py::arg("model"), py::arg("texts"), py::arg("pooling"), py::arg("n_threads"),
        py::arg_v("rope", triattn::RopeOverrides(), "RopeOverrides()"), py::arg("loras") = ScaledLoras());
}

}  // namespace pytriattn
