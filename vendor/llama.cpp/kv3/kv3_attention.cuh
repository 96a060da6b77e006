// Which instances of attention's vector kernel there are with KV3; each is compiled in a file of its own. Included
// behind llama.cpp's fattn-vec.cuh, which can be included only once.
#pragma once

constexpr bool GGML_CUDA_FA_KV3_KV3 = true;
constexpr bool GGML_CUDA_FA_KV3_Q8_0 = true;
constexpr bool GGML_CUDA_FA_Q8_0_KV3 = true;

#define KV3_ATTENTION(prefix, type_K, type_V)        \
    prefix DECL_FATTN_VEC_CASE(64, type_K, type_V);  \
    prefix DECL_FATTN_VEC_CASE(128, type_K, type_V); \
    prefix DECL_FATTN_VEC_CASE(256, type_K, type_V);

KV3_ATTENTION(extern, GGML_TYPE_KV3, GGML_TYPE_KV3)
KV3_ATTENTION(extern, GGML_TYPE_KV3, GGML_TYPE_Q8_0)
KV3_ATTENTION(extern, GGML_TYPE_Q8_0, GGML_TYPE_KV3)
