#include "band_norms.h"

#include <cmath>

namespace triattn {
namespace {

// The same without a branch per element, so that compilers vectorise it.
void norms_of_neighbours(const float * x, int n_bands, float * out) {
    for (int f = 0; f < n_bands; ++f) {
        out[f] = std::sqrt(x[2 * f] * x[2 * f] + x[2 * f + 1] * x[2 * f + 1]);
    }
}

void norms_of_halves(const float * low, const float * high, int n_bands, float * out) {
    for (int f = 0; f < n_bands; ++f) {
        out[f] = std::sqrt(low[f] * low[f] + high[f] * high[f]);
    }
}

// ggml_custom_op_t: rows of the result are split over threads
void compute(ggml_tensor * result, int thread, int n_threads, void * user) {
    const RopeLayout & rope = *static_cast<const RopeLayout *>(user);
    const ggml_tensor * keys = result->src[0];
    const int64_t n_heads = keys->ne[0] / rope.head_dim;
    const std::vector<RopeLayout::Part> parts = rope.parts();
    for (int64_t row = thread; row < result->ne[1]; row += n_threads) {
        const float * x = reinterpret_cast<const float *>(static_cast<const char *>(keys->data) + row * keys->nb[1]);
        float * out = reinterpret_cast<float *>(static_cast<char *>(result->data) + row * result->nb[1]);
        for (int64_t head = 0; head < n_heads; ++head, x += rope.head_dim, out += rope.n_bands()) {
            if (rope.interleaved) {
                norms_of_neighbours(x, rope.n_bands(), out);
            } else {
                for (const RopeLayout::Part & part : parts) {
                    norms_of_halves(x + part.begin, x + part.begin + part.size / 2, part.size / 2,
                                    out + part.begin / 2);
                }
            }
        }
    }
}

}  // namespace

ggml_tensor * band_norms(ggml_context * ctx, const RopeLayout & rope, int n_head_kv, ggml_tensor * keys) {
    const int64_t d = rope.head_dim, n = keys->ne[1], n_heads = n_head_kv * n, width = d / 2 * n_head_kv;
    if (rope.interleaved) {
        // neighbours apart: all first dimensions of bands, then all second ones
        ggml_tensor * apart = ggml_cont(ctx, ggml_transpose(ctx, ggml_reshape_2d(ctx, keys, 2, width * n)));
        ggml_tensor * squares = ggml_sqr(ctx, apart);
        const auto half = [&](size_t offset) {
            return ggml_view_2d(ctx, squares, width, n, width * sizeof(float), offset);
        };
        return ggml_sqrt(ctx, ggml_add(ctx, half(0), half(squares->nb[1])));
    }
    ggml_tensor * squares = ggml_sqr(ctx, keys);
    ggml_tensor * sums = nullptr;
    for (const RopeLayout::Part & part : rope.parts()) {
        const auto half = [&](int64_t first) {
            return ggml_view_2d(ctx, squares, part.size / 2, n_heads, d * sizeof(float), first * sizeof(float));
        };
        ggml_tensor * sum = ggml_add(ctx, ggml_cont(ctx, half(part.begin)), half(part.begin + part.size / 2));
        sums = sums != nullptr ? ggml_concat(ctx, sums, sum, 0) : sum;
    }
    return ggml_reshape_2d(ctx, ggml_sqrt(ctx, sums), width, n);
}

ggml_tensor * band_norms_on_host(ggml_context * ctx, const RopeLayout & rope, int n_head_kv, ggml_tensor * keys) {
    ggml_tensor * arguments[] = {keys};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, static_cast<int64_t>(rope.n_bands()) * n_head_kv, keys->ne[1], 1, 1,
                          arguments, 1, compute, GGML_N_TASKS_MAX, const_cast<RopeLayout *>(&rope));
}

}  // namespace triattn
