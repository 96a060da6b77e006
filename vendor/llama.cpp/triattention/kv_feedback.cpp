#include "kv_feedback.h"

#include "cache_devices.h"
#include "errors.h"
#include "kv_parts.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "kv3.h"

#include <cstring>
#include <memory>
#include <string>

namespace triattn {
namespace {

// A tensor, and all that it lies in.
struct OwnTensor {
    ggml_context_ptr ctx;
    ggml_backend_buffer_ptr buffer;
    ggml_tensor * tensor = nullptr;
};

std::shared_ptr<ggml_tensor> make_feedback(const FedBackLayer & layer, uint32_t index) {
    auto own = std::make_shared<OwnTensor>();
    own->ctx.reset(ggml_init({ggml_tensor_overhead(), nullptr, /*no_alloc*/ true}));
    if (own->ctx) {
        own->tensor =
            ggml_new_tensor_2d(own->ctx.get(), GGML_TYPE_I8, static_cast<int64_t>(kv3_feedback_bytes(layer.head_dim)),
                               static_cast<int64_t>(layer.n_head_kv));
        own->buffer.reset(
            ggml_backend_alloc_ctx_tensors_from_buft(own->ctx.get(), ggml_backend_buffer_get_type(layer.k->buffer)));
    }
    if (!own->buffer) {
        throw ContextError("there is no memory beside the keys of layer " + std::to_string(index) +
                           "; use type_k='q8_0' or a smaller n_ctx");
    }
    ggml_format_name(own->tensor, "kv3_feedback_l%u", index);
    return {own, own->tensor};
}

// Weights of one, and nothing else.
void set_plain(const FedBackLayer & layer) {
    const size_t n_bytes = kv3_feedback_bytes(layer.head_dim);
    std::vector<uint8_t> bytes(n_bytes * layer.n_head_kv, 0);
    for (size_t head = 0; head < layer.n_head_kv; ++head) {
        for (size_t i = 0; i < layer.head_dim; ++i) {
            const float one = 1;
            std::memcpy(bytes.data() + head * n_bytes + i * sizeof one, &one, sizeof one);
        }
    }
    ggml_backend_tensor_set(layer.feedback, bytes.data(), 0, bytes.size());
}

}  // namespace

std::vector<FedBackLayer> attach_feedback(llama_context * ctx) {
    std::vector<FedBackLayer> result;
    // latent attention takes its values out of the keys
    if (llama_get_memory(ctx) == nullptr || llama_get_model(ctx)->hparams.is_mla()) {
        return result;
    }
    KvParts parts;
    try {
        parts = find_parts(ctx);
    } catch (const UnsupportedModelError &) {
        return result;  // a memory of another kind stores the nearest levels
    }
    for (llama_kv_cache * cache : {parts.full, parts.sliding}) {
        for (uint32_t layer : cache != nullptr ? cache->get_layer_ids() : std::vector<uint32_t>()) {
            ggml_tensor * k = cache->get_k_storage(static_cast<int32_t>(layer));
            const auto & hparams = llama_get_model(ctx)->hparams;
            if (k->type != GGML_TYPE_KV3 || hparams.n_head_kv(layer) == 0 ||
                !feeds_back_errors(ggml_backend_buffer_get_type(k->buffer))) {
                continue;
            }
            FedBackLayer found{k, nullptr, hparams.n_embd_head_k(layer), hparams.n_head_kv(layer)};
            std::shared_ptr<ggml_tensor> & feedback = cache->kv3_feedback[static_cast<int32_t>(layer)];
            if (!feedback) {
                feedback = make_feedback(found, layer);
            }
            found.feedback = feedback.get();
            set_plain(found);
            result.push_back(found);
        }
    }
    return result;
}

}  // namespace triattn
