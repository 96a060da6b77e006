#include "rope_probe.h"

#include "device_graph.h"
#include "errors.h"

#include <cmath>
#include <cstring>
#include <string>

namespace triattn {
namespace {

// Multiplying a whole head by one number (per token) commutes with RoPE; weights per dimension do not.
bool keeps_directions(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_VIEW:
        case GGML_OP_RESHAPE:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_CONT:
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_SCALE:
        case GGML_OP_RMS_NORM:
        case GGML_OP_L2_NORM:
            return true;
        case GGML_OP_MUL:
            return node->src[1]->ne[0] == 1;
        default:
            return false;
    }
}

// Where a head without RoPE may come from: the walk ends there.
bool is_source(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_MUL_MAT:
        case GGML_OP_ADD:
        case GGML_OP_MUL:
        case GGML_OP_NORM:
            return true;
        default:
            return false;
    }
}

// The operator on unit vectors at one position: column i of the result is RoPE(e_i). [head_dim, head_dim]
std::vector<float> apply_to_basis(const ggml_tensor * node, int head_dim, int32_t position) {
    int32_t mode = 0;
    std::memcpy(&mode, node->op_params + 2, sizeof mode);
    const bool four_positions = (mode & GGML_ROPE_TYPE_MROPE) != 0;

    DeviceGraph graph({}, 1);
    ggml_context * ctx = graph.begin(16);
    std::vector<float> basis(static_cast<size_t>(head_dim) * head_dim, 0.0f);
    for (int i = 0; i < head_dim; ++i) {
        basis[static_cast<size_t>(i) * head_dim + i] = 1.0f;
    }
    const std::vector<int32_t> positions(four_positions ? 4 : 1, position);
    ggml_tensor * x = graph.input_f32(basis, head_dim, head_dim);
    ggml_tensor * p = graph.input(positions.data(), GGML_TYPE_I32, static_cast<int64_t>(positions.size()));
    ggml_tensor * factors = nullptr;
    if (const ggml_tensor * source = node->src[2]) {
        std::vector<float> values(ggml_nelements(source));
        ggml_backend_tensor_get(source, values.data(), 0, ggml_nbytes(source));
        factors = graph.input_f32(values, static_cast<int64_t>(values.size()));
    }
    // any constructor will do: the parameters are then copied from the model's node
    int n_dims = 0;
    std::memcpy(&n_dims, node->op_params + 1, sizeof n_dims);
    int sections[GGML_MROPE_SECTIONS] = {0, 0, 0, 0};
    ggml_tensor * y = four_positions
        ? ggml_rope_multi(ctx, x, p, factors, n_dims, sections, mode, 0, 10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f)
        : ggml_rope_ext(ctx, x, p, factors, n_dims, mode, 0, 10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f);
    std::memcpy(y->op_params, node->op_params, sizeof y->op_params);
    graph.expand(y, /*output*/ true);
    graph.run();
    std::vector<float> result(basis.size());
    ggml_backend_tensor_get(y, result.data(), 0, ggml_nbytes(y));
    return result;
}

[[noreturn]] void refuse(const std::string & what) {
    throw UnsupportedModelError("this model's RoPE " + what + "; load it with budget=None");
}

}  // namespace

const ggml_tensor * find_rope(const ggml_tensor * rotated) {
    for (const ggml_tensor * node = rotated; node != nullptr;) {
        if (node->op == GGML_OP_ROPE) {
            return node;
        }
        if (keeps_directions(node)) {
            node = node->src[0];
            continue;
        }
        if (is_source(node)) {
            return nullptr;
        }
        refuse(std::string("is followed by the operation ") + ggml_op_name(node->op) + " that cannot be seen through");
    }
    return nullptr;
}

RopeLayout probe_rope(const ggml_tensor * node, int head_dim) {
    RopeLayout rope;
    rope.head_dim = head_dim;
    rope.omega.assign(head_dim / 2, 0.0);
    if (node == nullptr) {
        return rope;
    }
    if (node->ne[0] != head_dim) {
        refuse("rotates vectors of " + std::to_string(node->ne[0]) + " in heads of " + std::to_string(head_dim));
    }
    const std::vector<float> at_one = apply_to_basis(node, head_dim, 1);
    const auto entry = [&](int from, int to) { return static_cast<double>(at_one[static_cast<size_t>(from) * head_dim + to]); };

    std::memcpy(&rope.n_rot, node->op_params + 1, sizeof(int32_t));
    if (rope.n_rot <= 0 || rope.n_rot > head_dim || rope.n_rot % 2 != 0) {
        refuse("says it rotates " + std::to_string(rope.n_rot) + " of " + std::to_string(head_dim) + " dimensions");
    }
    // The first band turns fastest; where its first dimension goes tells the pairing.
    rope.interleaved = std::abs(entry(0, 1)) > std::abs(entry(0, rope.n_rot / 2));
    if (rope.n_rot == 2) {
        rope.interleaved = true;
    }

    std::vector<double> expected(at_one.size(), 0.0);
    bool have_scale = false;
    for (int f = 0; f < rope.n_bands(); ++f) {
        const auto [a, b] = rope.dims(f);
        const double c = entry(a, a), s = entry(a, b);
        rope.omega[f] = f < rope.n_rot / 2 ? std::atan2(s, c) : 0.0;
        if (f < rope.n_rot / 2 && !have_scale) {
            // the operator works in single precision; what differs from 1 by less is 1
            const double length = std::hypot(c, s);
            rope.scale = std::abs(length - 1.0) < 1e-6 ? 1.0 : static_cast<float>(length);
            have_scale = true;
        }
        const double m = rope.band_scale(f);
        expected[static_cast<size_t>(a) * head_dim + a] = expected[static_cast<size_t>(b) * head_dim + b] = m * std::cos(rope.omega[f]);
        expected[static_cast<size_t>(a) * head_dim + b] = m * std::sin(rope.omega[f]);
        expected[static_cast<size_t>(b) * head_dim + a] = -m * std::sin(rope.omega[f]);
    }
    for (size_t i = 0; i < expected.size(); ++i) {
        if (std::abs(expected[i] - at_one[i]) > 1e-4) {
            refuse("is not a rotation of pairs at the front of each head");
        }
    }
    // Frequency factors of 1e30 mean "not rotated"; what is left of them is far below any angle that matters.
    for (double & omega : rope.omega) {
        if (std::abs(omega) < 1e-20) {
            omega = 0.0;
        }
    }
    return rope;
}

}  // namespace triattn
