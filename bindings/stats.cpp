// LayerStats and Stats as Python objects with numpy arrays; the calibrator.
#include "bindings.h"
#include "fork_guard.h"
#include "rope_properties.h"

#include "calibrator.h"

namespace pytriattn {
namespace {

using triattn::LayerStats;
using triattn::Stats;

LayerStats make_layer(int layer, int n_head, int n_head_kv, int head_dim, int rot_begin, int n_rot, bool interleaved,
                      double scale, const array<double> & omega, const array<float> & centre,
                      const array<float> & magnitude, const std::optional<array<float>> & fit) {
    LayerStats result;
    result.layer = layer;
    result.n_head = n_head;
    result.n_head_kv = n_head_kv;
    result.rope.head_dim = head_dim;
    result.rope.rot_begin = rot_begin;
    result.rope.n_rot = n_rot;
    result.rope.interleaved = interleaved;
    result.rope.scale = scale;
    result.rope.omega = to_vector(omega);
    result.centre = to_vector(centre);
    result.magnitude = to_vector(magnitude);
    if (fit) {
        result.fit = to_vector(*fit);
    }
    triattn::check(result);
    return result;
}

// layer of the result, KV head, features [n_keys, n_features], targets [n_keys]
using OnKeys = py::typing::Callable<py::object(size_t, size_t, array<float>, array<float>)>;

Stats run_calibration(const Model & model, const array<llama_token> & tokens, int n_ctx, int n_ubatch, int n_threads,
                      const triattn::RopeOverrides & rope,
                      const std::optional<py::typing::Callable<py::object(int64_t, int64_t)>> & progress,
                      const std::optional<OnKeys> & on_keys) {
    if (tokens.size() == 0) {
        throw triattn::InvalidTokenError("there is no text to calibrate on");
    }
    check_not_forked(n_threads);
    SignalPoll poll;
    triattn::CalibrationOptions options;
    options.n_ctx = n_ctx;
    options.n_ubatch = n_ubatch;
    options.n_threads = n_threads;
    options.rope = rope;
    options.interrupted = [&] { return model.rpc.lost() || poll(); };
    if (progress) {
        options.progress = [&progress](int64_t done, int64_t total) {
            with_gil([&] { call_python(*progress, done, total); });
        };
    }
    if (on_keys) {
        options.on_keys = [&on_keys](size_t layer, size_t kv_head, std::vector<float> features,
                                     std::vector<float> targets) {
            const auto n = static_cast<py::ssize_t>(targets.size()), size = static_cast<py::ssize_t>(features.size());
            with_gil([&] {
                call_python(*on_keys, layer, kv_head, to_array(std::move(features), {n, size / n}),
                            to_array(std::move(targets), {n}));
            });
        };
    }
    const std::vector<llama_token> ids = to_vector(tokens);
    recent_errors();
    try {
        const GilRelease release;
        return model.rpc.guard([&] { return triattn::calibrate(model.model.get(), ids, options); });
    } catch (const triattn::InterruptedError &) {
        poll.rethrow();
        throw;
    }
}

}  // namespace

void add_stats(py::module_ & m) {
    auto layer =
        py::class_<LayerStats>(m, "LayerStats")
            .def(py::init(&make_layer), py::kw_only(), py::arg("layer"), py::arg("n_head"), py::arg("n_head_kv"),
                 py::arg("head_dim"), py::arg("rot_begin"), py::arg("n_rot"), py::arg("interleaved"), py::arg("scale"),
                 py::arg("omega"), py::arg("centre"), py::arg("magnitude"), py::arg("fit") = py::none())
            .def_readonly("layer", &LayerStats::layer)
            .def_readonly("n_head", &LayerStats::n_head)
            .def_readonly("n_head_kv", &LayerStats::n_head_kv)
            .def_property_readonly("centre",
                                   [](const LayerStats & s) { return to_array(s.centre, {s.n_head, s.rope.head_dim}); })
            .def_property_readonly(
                "magnitude", [](const LayerStats & s) { return to_array(s.magnitude, {s.n_head, s.rope.n_bands()}); })
            .def_property_readonly("fit", [](const LayerStats & s) -> std::optional<array<float>> {
                if (s.fit.empty()) {
                    return std::nullopt;
                }
                const auto n = static_cast<py::ssize_t>(s.fit.size()) / s.n_head_kv;
                return to_array(s.fit, {s.n_head_kv, n});
            });
    add_rope_properties(layer);
    py::class_<Stats>(m, "Stats")
        .def(py::init(
                 [](std::vector<LayerStats> layers, int64_t n_tokens) { return Stats{std::move(layers), n_tokens}; }),
             py::arg("layers"), py::arg("n_tokens"))
        .def_readonly("layers", &Stats::layers)
        .def_readonly("n_tokens", &Stats::n_tokens);
    m.def("calibrate", &run_calibration, py::arg("model"), py::arg("tokens"), py::kw_only(), py::arg("n_ctx"),
          py::arg("n_ubatch"), py::arg("n_threads"), py::arg_v("rope", triattn::RopeOverrides(), "RopeOverrides()"),
          py::arg("progress") = py::none(), py::arg("on_keys") = py::none());
}

}  // namespace pytriattn
