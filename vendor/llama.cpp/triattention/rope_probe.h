// The RoPE operator as it stands in a model's graph: finding it, running it, and reading off what it does.
#pragma once

#include "rope.h"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

struct ggml_tensor;

namespace triattn {

// An operator taken out of a graph with all its parameters, so that it can be run on any vectors.
struct RopeOperator {
    std::array<int32_t, 16> params{};  // ggml's own, as in the graph
    std::vector<float> factors;        // that divide frequencies; empty: none
    int begin = 0;                     // the dimensions of a head that it rotates: from here on
    int width = 0;                     // and so many

    bool operator==(const RopeOperator & other) const {
        return params == other.params && factors == other.factors && begin == other.begin && width == other.width;
    }
};

// What happens to query or key vectors between the projection and the cache (or the queries' product with it).
struct RopeTrace {
    std::optional<RopeOperator> op;  // none: no RoPE
    std::vector<float> weights;  // [head_dim] that each dimension is multiplied by after RoPE (a norm's); empty: none
    bool hadamard = false;       // llama.cpp's rotation for quantised caches comes last
};

// Walks back from `vectors` (heads of `head_dim` dimensions) over operations that multiply vectors by a number, or each
// dimension by a weight of the model. Throws UnsupportedModelError where anything else stands between RoPE and
// `vectors`.
RopeTrace trace_rope(const ggml_tensor * vectors, int head_dim);

// Runs the operator on `vectors` [positions.size(), head_dim] as those of text; other dimensions pass unchanged.
std::vector<float> run_rope(const RopeOperator & rope, const std::vector<float> & vectors, int head_dim,
                            const std::vector<int32_t> & positions);
// The same with several coordinates; only M-RoPE looks at more than the first.
std::vector<float> run_rope(const RopeOperator & rope, const std::vector<float> & vectors, int head_dim,
                            const std::vector<Coordinates> & positions);

// What the operator (none: no RoPE) does to heads of `head_dim`, found by running it on unit vectors.
// Throws UnsupportedModelError if it is not a rotation of neighbouring or half-split pairs.
RopeLayout probe_rope(const std::optional<RopeOperator> & rope, int head_dim);

}  // namespace triattn
