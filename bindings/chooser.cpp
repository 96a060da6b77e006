#include "chooser.h"

#include "repr.h"

#include <string>

namespace pytriattn {
namespace {

// One layer of a view.
struct ViewedLayer {
    std::shared_ptr<SharedView> view;
    size_t index;
    triattn::KvLayer layer;

    array<float> keys() const {
        return to_array(view->read([&](const triattn::EvictionView & v) { return v.keys(index); }),
                        {layer.n_head_kv, n_keys(), layer.head_dim_k});
    }
    array<float> values() const {
        return to_array(view->read([&](const triattn::EvictionView & v) { return v.values(index); }),
                        {layer.n_head_kv, n_keys(), layer.head_dim_v});
    }
    array<int32_t> origins() const {
        return to_array(view->read([&](const triattn::EvictionView & v) { return v.origins(index); }),
                        {layer.n_head_kv, n_keys()});
    }
    py::ssize_t n_keys() const { return static_cast<py::ssize_t>(view->n_keys); }
};

std::vector<ViewedLayer> layers_of(const std::shared_ptr<SharedView> & view) {
    std::vector<ViewedLayer> result;
    for (const triattn::KvLayer & layer : view->layers()) {
        result.push_back({view, result.size(), layer});
    }
    return result;
}

array<int32_t> positions_of(const SharedView & self) {
    const auto values = self.read([](const triattn::EvictionView & view) {
        std::vector<int32_t> positions;
        for (const triattn::KvCell & cell : view.cells()) {
            positions.push_back(cell.pos);
        }
        return positions;
    });
    return to_array(values, {static_cast<py::ssize_t>(values.size())});
}

array<bool> is_protected_of(const SharedView & self) {
    const auto marks = self.read([](const triattn::EvictionView & view) { return view.is_protected(); });
    return to_bool_array(marks, {static_cast<py::ssize_t>(marks.size())});
}

// One layer's answer as marks. Throws BudgetError if it is no bool array of the right shape.
std::vector<std::vector<uint8_t>> marks_of(const py::handle & answer, const triattn::KvLayer & layer, size_t n_keys) {
    const py::array values = py::array::ensure(answer);
    const std::string expected = "bool [" + std::to_string(layer.n_head_kv) + ", " + std::to_string(n_keys) + "]";
    if (!values) {
        PyErr_Clear();
        throw triattn::BudgetError("the chooser's answer for layer " + std::to_string(layer.layer) + " is a " +
                                   std::string(py::str(py::type::of(answer).attr("__name__"))) + ", expected " +
                                   expected);
    }
    if (values.dtype().kind() != 'b' || values.ndim() != 2 || values.shape(0) != layer.n_head_kv ||
        values.shape(1) != static_cast<py::ssize_t>(n_keys)) {
        throw triattn::BudgetError("the chooser's answer for layer " + std::to_string(layer.layer) + " is " +
                                   std::string(py::str(values.dtype())) + " " + shape_of(values) + ", expected " +
                                   expected);
    }
    const array<bool> marks = array<bool>::ensure(values);
    std::vector<std::vector<uint8_t>> result;
    for (int head = 0; head < layer.n_head_kv; ++head) {
        const bool * first = marks.data(head);
        result.emplace_back(first, first + n_keys);
    }
    return result;
}

}  // namespace

SharedView::SharedView(const triattn::EvictionView & view) : current_(&view) { take_facts(view); }

SharedView::SharedView(const py::object & context, int32_t seq_)
    : owner_(context), context_(context.cast<Context *>()) {
    own_ = context_->run_without_gil([&](triattn::Decoder & decoder) {
        version_ = decoder.cache_version();
        return decoder.eviction_view(seq_);
    });
    take_facts(*own_);
}

void SharedView::take_facts(const triattn::EvictionView & view) {
    seq = view.seq();
    position = view.position();
    n_keys = view.n_keys();
    n_keep = view.n_keep();
    layers_ = view.layers();
}

const triattn::EvictionView & SharedView::current() const {
    if (current_ == nullptr) {
        throw ClosedError("this view's eviction is over; copy what you need before the chooser returns");
    }
    return *current_;
}

void SharedView::check_version(const triattn::Decoder & decoder) const {
    if (decoder.cache_version() != version_) {
        throw triattn::ContextError("the cache has changed since this view of it was made; make another one");
    }
}

PythonChooser::PythonChooser(Callable callable)
    : callable_(new py::object(std::move(callable)),
                [](const py::object * object) { with_gil([object] { delete object; }); }) {}

triattn::Kept PythonChooser::operator()(const triattn::EvictionView & view) const {
    return with_gil([&] { return choose(view); });
}

triattn::Kept PythonChooser::choose(const triattn::EvictionView & view) const {
    const auto shared = std::make_shared<SharedView>(view);
    struct End {
        SharedView & view;
        ~End() { view.end(); }
    } const end{*shared};
    const py::object answer = call_python(*callable_, shared);
    if (!py::isinstance<py::iterable>(answer)) {
        throw triattn::BudgetError("the chooser returned " + std::string(py::repr(answer)) + ", expected a list of " +
                                   std::to_string(view.layers().size()) +
                                   " bool arrays [n_head_kv, n_keys], one for each layer");
    }
    triattn::Kept kept;
    const auto list = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject *>(&PyList_Type));
    for (const py::handle item : call_python(list, answer)) {  // it may be a generator, so more of the user's code
        if (kept.size() < view.layers().size()) {
            kept.push_back(marks_of(item, view.layers()[kept.size()], view.n_keys()));
        } else {
            kept.emplace_back();  // one too many, which the engine counts
        }
    }
    return kept;
}

void add_eviction_view(py::module_ & m) {
    auto layer =
        py::class_<ViewedLayer>(m, "EvictionLayer", "One layer of an EvictionView. What it returns is a copy.")
            .def_property_readonly(
                "layer", [](const ViewedLayer & self) { return self.layer.layer; }, "Index in the model.")
            .def_property_readonly(
                "n_head_kv", [](const ViewedLayer & self) { return self.layer.n_head_kv; }, "KV heads.")
            .def_property_readonly(
                "head_dim_k", [](const ViewedLayer & self) { return self.layer.head_dim_k; }, "Dimensions of a key.")
            .def_property_readonly(
                "head_dim_v", [](const ViewedLayer & self) { return self.layer.head_dim_v; },
                "Dimensions of a value; 0 if values are a part of the keys (latent attention).")
            .def("keys", &ViewedLayer::keys,
                 "Keys after RoPE as the cache stores them, dequantised, float32 [n_head_kv, n_keys, "
                 "head_dim_k]. The Hadamard rotation of a quantised cache has been undone.")
            .def("values", &ViewedLayer::values,
                 "Values as the cache stores them, dequantised, float32 [n_head_kv, n_keys, head_dim_v]. The "
                 "Hadamard rotation of a quantised cache has been undone.")
            .def("origins", &ViewedLayer::origins,
                 "Positions of the tokens that each head's keys come from, int32 [n_head_kv, n_keys].");
    add_repr(layer, {"layer", "n_head_kv", "head_dim_k", "head_dim_v"});

    auto view =
        py::class_<SharedView, std::shared_ptr<SharedView>>(
            m, "EvictionView",
            "What a sequence's cache holds, for a chooser of the keys that stay. Keys are in the order of the positions "
            "of their cells. A view that a chooser gets can be read until the chooser returns (then ClosedError), one "
            "from Context.eviction_view until the cache changes (then ContextError).")
            .def_readonly("seq", &SharedView::seq, "The sequence.")
            .def_readonly("position", &SharedView::position, "Position of the next token.")
            .def_readonly("n_keys", &SharedView::n_keys, "Keys of each head.")
            .def_readonly("n_keep", &SharedView::n_keep, "Keys that each head has to keep, protected ones included.")
            .def_property_readonly("positions", &positions_of,
                                   "Positions of the cells, ascending, int32 [n_keys]. After an eviction they are "
                                   "labels: see EvictionLayer.origins.")
            .def_property_readonly("is_protected", &is_protected_of,
                                   "Whether a key must be kept, as one of the sink, of a protected prompt or of the "
                                   "window, bool [n_keys].")
            .def_property_readonly("layers", &layers_of, "The layers that are evicted from, in the model's order.");
    add_repr(view, {"seq", "position", "n_keys", "n_keep"});
}

}  // namespace pytriattn
