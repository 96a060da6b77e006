#include "rope_probe.h"

#include "device_graph.h"
#include "errors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

namespace triattn {
namespace {

// ggml's places for the parameters of GGML_OP_ROPE
constexpr size_t N_DIMS = 1, MODE = 2, FIRST_DIM = 15;
constexpr int32_t VISION = GGML_ROPE_TYPE_VISION;

[[noreturn]] void refuse(const std::string & what) {
    throw UnsupportedModelError("this model's RoPE " + what + "; load it with budget=None");
}

// llama.cpp rotates queries and keys of quantised caches by a Hadamard matrix: an input of the graph with this name.
bool is_hadamard(const ggml_tensor * tensor) { return std::strstr(tensor->name, "attn_inp_k_rot") != nullptr; }

// Whether the operation multiplies each vector by one number at most: such a thing commutes with RoPE.
bool keeps_directions(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_CONT:
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_REPEAT:
        case GGML_OP_SCALE:
        case GGML_OP_RMS_NORM:
        case GGML_OP_L2_NORM:  return true;
        case GGML_OP_MUL:      return node->src[1]->ne[0] == 1;
        default:               return false;
    }
}

// Whether a view or reshape leaves vectors of `width` dimensions whole, or cuts them into equal pieces that are put
// together again.
bool keeps_vectors(const ggml_tensor * node, int width) {
    const int64_t n = node->ne[0];
    if (node->op == GGML_OP_PERMUTE) {
        int32_t axis = 0;
        std::memcpy(&axis, node->op_params, sizeof axis);
        return axis == 0;
    }
    if (node->op == GGML_OP_VIEW) {
        const size_t vector = width * ggml_element_size(node);
        return n % width == 0 && node->view_offs % vector == 0;
    }
    return n % width == 0 || width % n == 0;
}

// The values of a weight of the model; none if the tensor is none.
std::vector<float> read_weight(const ggml_tensor * tensor) {
    if (tensor->buffer == nullptr || tensor->op != GGML_OP_NONE || tensor->type != GGML_TYPE_F32) {
        return {};
    }
    std::vector<float> values(static_cast<size_t>(ggml_nelements(tensor)));
    ggml_backend_tensor_get(tensor, values.data(), 0, ggml_nbytes(tensor));
    return values;
}

RopeOperator read_operator(const ggml_tensor * node, int begin, int width) {
    RopeOperator rope;
    static_assert(sizeof rope.params == GGML_MAX_OP_PARAMS, "ggml's parameters have another size");
    std::memcpy(rope.params.data(), node->op_params, sizeof rope.params);
    if (node->ne[0] != width) {
        refuse("rotates vectors of " + std::to_string(node->ne[0]) + " where heads have " + std::to_string(width));
    }
    // Queries may be rotated as whole heads and keys as their last part alone (DeepSeek 2): what matters is what is
    // rotated.
    const int32_t n_dims = rope.params[N_DIMS], first = rope.params[FIRST_DIM];
    if (n_dims <= 0 || n_dims % 2 != 0 || first < 0 || first % 2 != 0 || first + n_dims > width ||
        (rope.params[MODE] & VISION) == VISION) {
        refuse("says it rotates " + std::to_string(n_dims) + " of " + std::to_string(width) + " dimensions, from " +
               std::to_string(first) + " on");
    }
    rope.begin = begin + first;
    rope.width = n_dims;
    rope.params[FIRST_DIM] = 0;
    const ggml_tensor * positions = node->src[1];
    while (positions->op == GGML_OP_VIEW || positions->op == GGML_OP_RESHAPE) {
        positions = positions->src[0];
    }
    if (positions->op != GGML_OP_NONE) {
        refuse(std::string("computes its positions by ") + ggml_op_name(positions->op));
    }
    if (node->src[2] != nullptr) {
        rope.factors = read_weight(node->src[2]);
        if (rope.factors.empty()) {
            refuse("has frequency factors that are not weights of the model");
        }
    }
    return rope;
}

void refuse_if_followed_by(const char * mixed) {
    if (mixed != nullptr) {
        refuse(std::string("is followed by ") + mixed + ", whose effect on attention is not known here");
    }
}

// Follows a tensor back to RoPE. `begin`, `width`: which of the head's dimensions `node` gives; `whole`: all of them.
RopeTrace trace_back(const ggml_tensor * node, int begin, int width, bool whole) {
    RopeTrace trace;
    const char * mixed = nullptr;  // what cannot stand after RoPE has been passed: fine if no RoPE comes before it
    const ggml_tensor * multiplied = nullptr;  // the node that multiplies each dimension by a weight
    const auto finish = [&](std::optional<RopeOperator> op) {
        if (op) {
            refuse_if_followed_by(mixed);
            if (multiplied != nullptr) {
                trace.weights = read_weight(multiplied->src[1]);
                if (!whole || trace.weights.size() != static_cast<size_t>(width)) {
                    refuse_if_followed_by("a product that is not with a weight for each dimension");
                }
            }
        }
        trace.op = std::move(op);
        return trace;
    };
    while (node != nullptr) {
        switch (node->op) {
            case GGML_OP_ROPE:    return finish(read_operator(node, begin, width));
            case GGML_OP_VIEW:
            case GGML_OP_RESHAPE:
            case GGML_OP_PERMUTE:
                if (!keeps_vectors(node, width)) {
                    mixed = "a cut through heads";
                }
                break;
            case GGML_OP_CONCAT: {
                int32_t dim = 0;
                std::memcpy(&dim, node->op_params, sizeof dim);
                if (dim != 0 || node->ne[0] != width) {
                    refuse("is followed by a concatenation that cannot be seen through");
                }
                const int left = static_cast<int>(node->src[0]->ne[0]);
                const RopeTrace first = trace_back(node->src[0], begin, left, false);
                const RopeTrace second = trace_back(node->src[1], begin + left, width - left, false);
                if ((first.op && second.op) || first.hadamard || second.hadamard) {
                    refuse("is applied to parts of a head in different ways");
                }
                return finish(first.op ? first.op : second.op);
            }
            case GGML_OP_MUL_MAT:
                if (!is_hadamard(node->src[0])) {
                    return finish(std::nullopt);  // a projection: vectors start here
                }
                trace.hadamard = true;
                node = node->src[1];
                continue;
            case GGML_OP_ADD:   mixed = "a bias"; break;
            case GGML_OP_NORM:  mixed = "a norm that subtracts means"; break;
            case GGML_OP_CLAMP: mixed = "a clamp"; break;
            case GGML_OP_NONE:  refuse("cannot be found: '" + std::string(node->name) + "' comes from elsewhere");
            default:
                if (node->op == GGML_OP_MUL && node->src[1]->ne[0] != 1) {
                    if (multiplied != nullptr || mixed != nullptr) {
                        mixed = "several operations on single dimensions";
                    }
                    multiplied = node;
                } else if (!keeps_directions(node)) {
                    refuse(std::string("is followed by the operation ") + ggml_op_name(node->op) +
                           " that cannot be seen through");
                }
        }
        node = node->src[0];
    }
    return finish(std::nullopt);
}

}  // namespace

RopeTrace trace_rope(const ggml_tensor * vectors, int head_dim) { return trace_back(vectors, 0, head_dim, true); }

std::vector<float> run_rope(const RopeOperator & rope, const std::vector<float> & vectors, int head_dim,
                            const std::vector<int32_t> & positions) {
    return run_rope(rope, vectors, head_dim, coordinates_of_text(positions));
}

std::vector<float> run_rope(const RopeOperator & rope, const std::vector<float> & vectors, int head_dim,
                            const std::vector<Coordinates> & positions) {
    const int64_t n = static_cast<int64_t>(positions.size());
    const int32_t n_dims = rope.params[N_DIMS], mode = rope.params[MODE];
    const bool four_positions = (mode & GGML_ROPE_TYPE_MROPE) != 0;

    DeviceGraph graph({}, 1);
    ggml_context * ctx = graph.begin(16);
    std::vector<float> part(static_cast<size_t>(n) * rope.width);
    for (int64_t i = 0; i < n; ++i) {
        std::copy_n(vectors.begin() + i * head_dim + rope.begin, rope.width, part.begin() + i * rope.width);
    }
    ggml_tensor * x = graph.input_f32(part, rope.width, 1, n);
    // M-RoPE has a fourth coordinate, which is 0 for text
    std::vector<int32_t> all(static_cast<size_t>(n) * (four_positions ? 4 : 1), 0);
    for (size_t i = 0; i < positions.size(); ++i) {
        for (size_t c = 0; c < (four_positions ? positions[i].size() : 1); ++c) {
            all[c * static_cast<size_t>(n) + i] = positions[i][c];
        }
    }
    ggml_tensor * p = graph.input(all.data(), GGML_TYPE_I32, static_cast<int64_t>(all.size()));
    ggml_tensor * factors =
        rope.factors.empty() ? nullptr : graph.input_f32(rope.factors, static_cast<int64_t>(rope.factors.size()));
    // any constructor will do: the parameters are then those of the model's node
    int sections[GGML_MROPE_SECTIONS] = {0, 0, 0, 0};
    ggml_tensor * y =
        four_positions
            ? ggml_rope_multi(ctx, x, p, factors, n_dims, sections, mode, 0, 10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f)
            : ggml_rope_ext(ctx, x, p, factors, n_dims, mode, 0, 10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f);
    std::memcpy(y->op_params, rope.params.data(), sizeof y->op_params);
    graph.expand(y, /*output*/ true);
    graph.run();
    ggml_backend_tensor_get(y, part.data(), 0, ggml_nbytes(y));

    std::vector<float> result = vectors;
    for (int64_t i = 0; i < n; ++i) {
        std::copy_n(part.begin() + i * rope.width, rope.width, result.begin() + i * head_dim + rope.begin);
    }
    return result;
}

RopeLayout probe_rope(const std::optional<RopeOperator> & op, int head_dim) {
    RopeLayout rope;
    rope.head_dim = head_dim;
    rope.omega.assign(head_dim / 2, 0.0);
    if (!op) {
        return rope;
    }
    rope.n_rot = op->width;
    rope.rot_begin = op->begin;

    // RoPE of every unit vector at position 1
    const size_t d = static_cast<size_t>(head_dim);
    std::vector<float> basis(d * d, 0.0f);
    for (size_t i = 0; i < d; ++i) {
        basis[i * d + i] = 1.0f;
    }
    const std::vector<float> at_one = run_rope(*op, basis, head_dim, std::vector<int32_t>(d, 1));
    const auto entry = [&](int from, int to) {
        return static_cast<double>(at_one[static_cast<size_t>(from) * d + static_cast<size_t>(to)]);
    };

    // The first band turns fastest; where its first dimension goes tells the pairing.
    const int begin = rope.rot_begin, first_band = begin / 2, end_band = (begin + rope.n_rot) / 2;
    rope.interleaved =
        rope.n_rot == 2 || std::abs(entry(begin, begin + 1)) > std::abs(entry(begin, begin + rope.n_rot / 2));
    for (int f = first_band; f < end_band; ++f) {
        const auto [a, b] = rope.dims(f);
        rope.omega[f] = std::atan2(entry(a, b), entry(a, a));
    }
    const auto [a0, b0] = rope.dims(first_band);
    // the operator works in single precision; what differs from 1 by less is 1
    const double length = std::hypot(entry(a0, a0), entry(a0, b0));
    rope.scale = std::abs(length - 1.0) < 1e-6 ? 1.0 : static_cast<float>(length);

    std::vector<double> expected(d * d, 0.0);
    for (int f = 0; f < rope.n_bands(); ++f) {
        const auto [a, b] = rope.dims(f);
        const double c = rope.band_scale(f) * std::cos(rope.omega[f]), s = rope.band_scale(f) * std::sin(rope.omega[f]);
        expected[a * d + a] = expected[b * d + b] = c;
        expected[a * d + b] = s;
        expected[b * d + a] = -s;
    }
    for (size_t i = 0; i < expected.size(); ++i) {
        if (std::abs(expected[i] - at_one[i]) > 1e-4) {
            refuse("is not a rotation of pairs of dimensions");
        }
    }
    if ((op->params[MODE] & GGML_ROPE_TYPE_MROPE) != 0) {
        rope.sections.assign(static_cast<size_t>(rope.n_bands()), 0);
        for (const uint8_t c : {uint8_t{1}, uint8_t{2}}) {
            Coordinates one{};
            one[c] = 1;
            const std::vector<float> turned = run_rope(*op, basis, head_dim, std::vector<Coordinates>(d, one));
            for (int f = first_band; f < end_band; ++f) {
                const auto [a, b] = rope.dims(f);
                if (turned[static_cast<size_t>(a) * d + static_cast<size_t>(b)] != 0.0f) {
                    rope.sections[static_cast<size_t>(f)] = c;
                }
            }
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
