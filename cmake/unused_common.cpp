// In the place of llama.cpp's fit.cpp, which is not compiled. Functions of common that nothing here calls name these: one
// loads a model, one prints how long sampling took. If the pin moves and another is missing, the module cannot be
// imported, and the error names it.
#include "fit.h"
#include "ggml.h"

common_params_fit_status common_fit_params(const char *, llama_model_params *, llama_context_params *, float *,
                                           llama_model_tensor_buft_override *, size_t *, uint32_t,
                                           const common_fit_extra_model *, ggml_log_level) {
    GGML_ABORT("not built");
}

void common_memory_breakdown_print(const llama_context *) { GGML_ABORT("not built"); }
