#include "ggml-cuda/fattn-vec.cuh"

#include "kv3_attention.cuh"

KV3_ATTENTION(, GGML_TYPE_Q8_0, GGML_TYPE_KV3)
