// Images in prompts, through llama.cpp's tools/mtmd: a projector turns them into what the model reads in place of tokens.
#pragma once

#include "bindings.h"

#include "decoder.h"

#include "mtmd.h"

#include <string>
#include <vector>

namespace pytriattn {

struct ImageError : triattn::Error { using triattn::Error::Error; };

// A piece of a prompt: tokens, or an image (or a tile of one).
struct PromptPart {
    std::vector<llama_token> tokens;  // of text
    mtmd::input_chunk_ptr image;      // null: text
    int32_t n_tokens = 0, n_positions = 0;
    std::string identity;   // of the image: a hash of its file
    bool is_whole = false;  // its tokens look at each other in both directions, so they are read in one step
};

class Projector {
public:
    // `path`: the GGUF file ("mmproj") that belongs to the model. Throws ModelLoadError.
    Projector(std::shared_ptr<Model> model, const std::filesystem::path & path, int n_threads, bool use_gpu);

    // Stands in a prompt for an image. No user can know it.
    const std::string & marker() const { return marker_; }

    // A prompt's parts, with one image for each marker. `images` are files. Throws ImageError.
    std::vector<PromptPart> split(const std::string & prompt, const std::vector<std::string> & images) const;

    // Computes what the model reads of an image; the result is to be read before the next one is computed. `interrupted`
    // is polled. Throws ImageError, InterruptedError.
    triattn::Media encode(const PromptPart & part, std::function<bool()> interrupted);

private:
    mtmd::bitmap load_image(const std::string & file, size_t number) const;

    std::shared_ptr<Model> model_;
    std::string marker_;
    std::function<bool()> interrupted_;  // of the image that is computed
    bool was_interrupted_ = false;
    int n_nodes_ = 0;
    mtmd::context_ptr context_;  // last: it calls back
};

}  // namespace pytriattn
