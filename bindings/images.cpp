#include "images.h"

#include "context.h"

#include "mtmd-helper.h"
#include "stb/stb_image.h"

#include <cstdio>
#include <limits>
#include <random>
#include <utility>

namespace pytriattn {
namespace {

constexpr int64_t MAX_PIXELS = 100'000'000;
constexpr int POLL_EVERY = 16;  // operations

std::string random_marker() {
    std::random_device random;
    char text[64];
    std::snprintf(text, sizeof text, "<__media_%08x%08x%08x%08x__>", random(), random(), random(), random());
    return text;
}

// What is wrong with the n-th image.
[[noreturn]] void refuse(size_t number, const std::string & what) {
    throw ImageError("image " + std::to_string(number + 1) + " " + what);
}

}  // namespace

Projector::Projector(std::shared_ptr<Model> model, const std::filesystem::path & path, int n_threads, bool use_gpu)
    : model_(std::move(model)), marker_(random_marker()) {
    recent_errors();
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = use_gpu;
    params.print_timings = false;
    params.n_threads = n_threads;
    params.media_marker = marker_.c_str();
    params.cb_eval = [](ggml_tensor *, bool is_asked, void * self) {
        auto & projector = *static_cast<Projector *>(self);
        if (is_asked) {
            return ++projector.n_nodes_ % POLL_EVERY == 0;
        }
        projector.was_interrupted_ = projector.was_interrupted_ || (projector.interrupted_ && projector.interrupted_());
        return !projector.was_interrupted_;
    };
    params.cb_eval_user_data = this;
    {
        const GilRelease release;
        context_.reset(mtmd_init_from_file(native_path(path).c_str(), model_->model.get(), params));
    }
    if (!context_) {
        throw triattn::ModelLoadError("llama.cpp cannot use '" + native_path(path) +
                                      "' as mmproj; take the one that was published with this model");
    }
    if (!mtmd_support_vision(context_.get())) {
        throw triattn::ModelLoadError("'" + native_path(path) +
                                      "' has no encoder of images; take the mmproj of a vision model");
    }
}

mtmd::bitmap Projector::load_image(const std::string & file, size_t number) const {
    const auto * data = reinterpret_cast<const unsigned char *>(file.data());
    int width = 0, height = 0, n_channels = 0;
    if (file.size() > static_cast<size_t>(std::numeric_limits<int>::max()) ||
        stbi_info_from_memory(data, static_cast<int>(file.size()), &width, &height, &n_channels) == 0) {
        refuse(number, "is none that can be read; give a JPEG, PNG, BMP or GIF");
    }
    if (int64_t{width} * height > MAX_PIXELS) {
        refuse(number, "has " + std::to_string(width) + " x " + std::to_string(height) +
                           " pixels, more than 100 million; scale it down");
    }
    mtmd_helper_bitmap_wrapper loaded =
        mtmd_helper_bitmap_init_from_buf(context_.get(), data, file.size(), false, mtmd_helper_init_opt_default());
    mtmd::bitmap image(loaded.bitmap);
    if (loaded.bitmap == nullptr || mtmd_bitmap_is_audio(loaded.bitmap)) {
        refuse(number, "is damaged" + recent_errors());
    }
    return image;
}

std::vector<PromptPart> Projector::split(const std::string & prompt, const std::vector<std::string> & images) const {
    recent_errors();
    size_t n_markers = 0;
    for (size_t at = prompt.find(marker_); at != std::string::npos; at = prompt.find(marker_, at + 1)) {
        ++n_markers;
    }
    if (n_markers != images.size()) {
        throw ImageError("the chat template puts " + std::to_string(n_markers) + " of " +
                         std::to_string(images.size()) +
                         " images into the prompt; load the model with chat_template=... (Jinja), one for images");
    }
    mtmd::bitmaps bitmaps;
    for (size_t i = 0; i < images.size(); ++i) {
        bitmaps.entries.push_back(load_image(images[i], i));
    }
    const mtmd_input_text text{prompt.data(), prompt.size(), /*add_special*/ true, /*parse_special*/ true};
    const mtmd::input_chunks chunks(mtmd_input_chunks_init());
    std::vector<const mtmd_bitmap *> pointers = bitmaps.c_ptr();
    const int32_t status = mtmd_tokenize(context_.get(), chunks.ptr.get(), &text, pointers.data(), pointers.size());
    if (status != 0) {
        throw ImageError("an image cannot be prepared for this model" + recent_errors());
    }
    std::vector<PromptPart> parts;
    for (size_t i = 0; i < chunks.size(); ++i) {
        const mtmd_input_chunk * chunk = chunks[i];
        PromptPart part;
        part.n_tokens = static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk));
        part.n_positions = mtmd_input_chunk_get_n_pos(chunk);
        if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
            size_t n = 0;
            const llama_token * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
            part.tokens.assign(tokens, tokens + n);
        } else {
            part.image.reset(mtmd_input_chunk_copy(chunk));
            const char * identity = mtmd_input_chunk_get_id(chunk);
            part.identity = identity != nullptr ? identity : "";
            part.is_whole = mtmd_decode_use_non_causal(context_.get(), chunk);
        }
        parts.push_back(std::move(part));
    }
    // the model is to go on, so nothing ends the text
    const llama_vocab * vocab = model_->vocab();
    if (llama_vocab_get_add_eos(vocab) && !parts.empty() && !parts.back().tokens.empty() &&
        parts.back().tokens.back() == llama_vocab_eos(vocab)) {
        parts.back().tokens.pop_back();
        --parts.back().n_tokens;
        --parts.back().n_positions;
    }
    return parts;
}

triattn::Media Projector::encode(const PromptPart & part, std::function<bool()> interrupted) {
    was_interrupted_ = false;
    interrupted_ = std::move(interrupted);
    const int32_t status = mtmd_encode_chunk(context_.get(), part.image.get());
    const bool is_over = was_interrupted_ || (interrupted_ && interrupted_());
    interrupted_ = {};
    if (is_over) {
        throw triattn::InterruptedError("reading an image was interrupted");
    }
    if (status != 0) {
        throw ImageError("llama.cpp cannot encode an image" + recent_errors());
    }
    triattn::Media media;
    media.n_tokens = part.n_tokens;
    media.n_positions = part.n_positions;
    media.is_whole = part.is_whole;
    media.decode = [this, &part](llama_context * ctx, int32_t seq, llama_pos position, int32_t n_step) {
        llama_pos end = position;
        return mtmd_helper_decode_image_chunk(context_.get(), ctx, part.image.get(),
                                              mtmd_get_output_embd(context_.get()), position, seq, n_step, &end,
                                              nullptr, nullptr);
    };
    return media;
}

namespace {

void read_image(Context & self, int seq, Projector & projector, const PromptPart & part, int n_protected) {
    if (!part.image) {
        throw ImageError("this part of a prompt is text; use read()");
    }
    self.run_without_gil([&](triattn::Decoder & d) {
        const triattn::Media media = projector.encode(part, d.params().interrupted);
        d.read_media(seq, media, n_protected);
    });
}

}  // namespace

void add_images(py::module_ & m, py::class_<Context> & context) {
    py::class_<PromptPart>(m, "PromptPart", "A piece of a prompt: tokens, or an image (or a tile of one).")
        .def_property_readonly(
            "tokens",
            [](const PromptPart & self) {
                return to_array(self.tokens, {static_cast<py::ssize_t>(self.tokens.size())});
            },
            "Ids of the tokens, int32 [n]; none of an image.")
        .def_property_readonly(
            "is_image", [](const PromptPart & self) { return self.image != nullptr; }, "Whether it is an image.")
        .def_readonly("n_tokens", &PromptPart::n_tokens, "Keys that it takes in the cache.")
        .def_readonly("n_positions", &PromptPart::n_positions, "Positions that it takes.")
        .def_readonly("identity", &PromptPart::identity, "A hash of the image's file; empty for text.");
    py::class_<Projector>(m, "Projector", "Turns images into what a model reads in place of tokens.")
        .def(py::init<std::shared_ptr<Model>, const std::filesystem::path &, int, bool>(), py::arg("model"),
             py::arg("path"), py::kw_only(), py::arg("n_threads"), py::arg("use_gpu"))
        .def_property_readonly("marker", &Projector::marker, "Stands in a prompt for an image.")
        .def(
            "split",
            [](const Projector & self, const py::bytes & prompt, const std::vector<py::bytes> & images) {
                const std::vector<std::string> files(images.begin(), images.end());
                const std::string text = prompt;
                const GilRelease release;
                return self.split(text, files);
            },
            py::arg("prompt"), py::arg("images"),
            "The parts of a prompt, with a file for each marker. Raises ImageError.");
    context.def(
        "check_images", [](Context & self) { self.run_without_gil([](triattn::Decoder & d) { d.check_images(); }); },
        "Raises UnsupportedModelError if there is a budget, and keys of images could not be scored.");
    context.def(
        "check_image",
        [](Context & self, const PromptPart & part) {
            self.run_with_gil([&](triattn::Decoder & d) { d.check_media(part.n_tokens, part.is_whole); });
        },
        py::arg("part"), "Raises ContextError if the image has to be read in a larger step than the context can take.");
    context.def("read_image", &read_image, py::arg("seq"), py::arg("projector"), py::arg("part"),
                py::arg("n_protected") = 0, "Append an image to a sequence, as read() appends tokens.");
}

}  // namespace pytriattn
