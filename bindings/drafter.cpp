#include "drafter.h"

#include "flash_attention.h"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

namespace pytriattn {
namespace {

constexpr int READ_STEP = 512;  // tokens

common_speculative_ptr make_speculative(common_params_speculative params) {
    try {
        return common_speculative_ptr(common_speculative_init(params, /*n_seq*/ 1));
    } catch (const std::exception & error) {
        throw triattn::UnsupportedModelError(
            std::string("the draft model cannot draft for this model; take one of the same family, with the same "
                        "vocabulary: ") +
            error.what());
    }
}

}  // namespace

Drafter::Drafter(int n_match, int n_draft) : n_draft_(n_draft) {
    common_params_speculative params;
    params.types = {COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE};
    params.ngram_simple.size_n = static_cast<uint16_t>(n_match);
    params.ngram_simple.size_m = static_cast<uint16_t>(n_draft);
    speculative_ = make_speculative(std::move(params));
}

Drafter::Drafter(std::shared_ptr<Model> model, Context & target, int n_ctx, int n_threads, int n_draft)
    : model_(std::move(model)), n_ctx_(n_ctx), n_threads_(n_threads), n_draft_(n_draft) {
    llama_model * small = model_->model.get();
    if (llama_model_is_recurrent(small) || llama_model_is_hybrid(small)) {
        throw triattn::UnsupportedModelError(
            "the draft model has recurrent states, which cannot be turned back; take one with attention alone");
    }
    llama_context_params p = llama_context_default_params();
    p.n_ctx = static_cast<uint32_t>(n_ctx);
    p.n_batch = READ_STEP;
    p.n_ubatch = READ_STEP;
    p.n_seq_max = 1;
    p.n_threads = n_threads;
    p.n_threads_batch = n_threads;
    p.flash_attn_type = triattn::flash_attention_for(small, triattn::FlashAttention::automatic);
    p.swa_full = true;  // to be turned back by any number of tokens
    p.no_perf = true;
    p.abort_callback = [](void * self) {
        auto & drafter = *static_cast<Drafter *>(self);
        drafter.was_interrupted_ = drafter.was_interrupted_ || drafter.is_cancelled_ || drafter.poll_();
        return drafter.was_interrupted_;
    };
    p.abort_callback_data = this;
    ctx_.reset(llama_init_from_model(small, p));
    if (!ctx_) {
        throw triattn::ContextError("llama.cpp could not make a context of " + std::to_string(n_ctx) +
                                    " cells for the draft model; give it fewer (n_ctx)");
    }
    batch_ = common_batch(ctx_.get());
    common_params_speculative params;
    params.types = {COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE};
    params.draft.n_max = n_draft;
    params.draft.ctx_dft = ctx_.get();
    target.run_with_gil([&](triattn::Decoder & d) {
        params.draft.ctx_tgt = d.context();  // looked at while it is made, and never again
        speculative_ = make_speculative(std::move(params));
    });
}

void Drafter::append(const std::vector<llama_token> & tokens) {
    text_.insert(text_.end(), tokens.begin(), tokens.end());
}

// Brings the small model's cache to the text, or to its newest part where all of it does not fit.
void Drafter::read_text() {
    const auto n_cells = static_cast<size_t>(n_ctx_), n_ahead = static_cast<size_t>(n_draft_) + 1;
    size_t n_common = 0;
    if (begin_ < text_.size()) {
        const auto from = text_.begin() + static_cast<std::ptrdiff_t>(begin_);
        n_common =
            static_cast<size_t>(std::mismatch(read_.begin(), read_.end(), from, text_.end()).first - read_.begin());
    }
    if (n_common == 0 || text_.size() - begin_ + n_ahead > n_cells) {
        begin_ = text_.size() + n_ahead <= n_cells ? 0 : text_.size() - n_cells / 2;
        n_common = 0;
    }
    if (!llama_memory_seq_rm(llama_get_memory(ctx_.get()), 0, static_cast<llama_pos>(n_common), -1)) {
        throw triattn::DecodeError("llama.cpp could not turn back the draft model's cache");
    }
    read_.resize(n_common);
    while (begin_ + read_.size() < text_.size()) {
        const size_t first = begin_ + read_.size();
        const size_t n = std::min<size_t>(READ_STEP, text_.size() - first);
        batch_.clear();
        for (size_t i = first; i < first + n; ++i) {
            batch_.add(text_[i], static_cast<llama_pos>(i - begin_), 0, false);
        }
        const int status = llama_process(ctx_.get(), LLAMA_PROCESS_TYPE_DECODE, batch_.get());
        check_not_interrupted();
        if (status != 0) {
            throw triattn::DecodeError("llama.cpp could not read the text with the draft model (status " +
                                       std::to_string(status) + "); load without draft_model");
        }
        const auto begin = text_.begin() + static_cast<std::ptrdiff_t>(first);
        read_.insert(read_.end(), begin, begin + static_cast<std::ptrdiff_t>(n));
    }
}

void Drafter::check_not_interrupted() {
    if (was_interrupted_ || is_cancelled_ || (ctx_ && poll_())) {
        throw triattn::InterruptedError("drafting was interrupted");
    }
}

std::vector<llama_token> Drafter::draft(llama_token last, int n_max) {
    result_.clear();
    if (n_max < 1) {
        return {};
    }
    was_interrupted_ = false;
    try {
        if (ctx_) {
            read_text();
        }
        common_speculative_draft_params & wanted = common_speculative_get_draft_params(speculative_.get(), 0);
        wanted.drafting = true;
        wanted.n_max = n_max;
        wanted.pos0 = static_cast<llama_pos>(read_.size());
        wanted.id_last = last;
        wanted.prompt = &text_;
        wanted.result = &result_;
        common_speculative_draft(speculative_.get());
        check_not_interrupted();
    } catch (...) {
        read_.clear();  // what is in the cache is unknown; the next call empties it
        throw;
    }
    if (ctx_ && !result_.empty()) {
        read_.push_back(last);
        read_.insert(read_.end(), result_.begin(), result_.end() - 1);
    }
    return result_;
}

namespace {

std::vector<llama_token> draft(Drafter & self, llama_token last, int n_max) {
    const BusyGuard guard(self.busy(), "this draft model");
    check_not_forked(self.n_threads(), false);
    recent_errors();
    try {
        const GilRelease release;
        return self.draft(last, n_max);
    } catch (const triattn::InterruptedError &) {
        self.poll().rethrow();
        throw;
    }
}

}  // namespace

void add_drafter(py::module_ & m) {
    py::class_<Drafter>(m, "Drafter", "Guesses what a model will say next: from the text itself, or by a small model.")
        .def(py::init<int, int>(), py::kw_only(), py::arg("n_match"), py::arg("n_draft"))
        .def(py::init<std::shared_ptr<Model>, Context &, int, int, int>(), py::arg("model"), py::arg("target"),
             py::kw_only(), py::arg("n_ctx"), py::arg("n_threads"), py::arg("n_draft"))
        .def(
            "set_text", [](Drafter & self, const array<llama_token> & tokens) { self.set_text(to_vector(tokens)); },
            py::arg("tokens"), "The text that drafts go on from, int32 [n_tokens].")
        .def(
            "append", [](Drafter & self, const array<llama_token> & tokens) { self.append(to_vector(tokens)); },
            py::arg("tokens"), "The text goes on with these tokens, int32 [n_tokens].")
        .def("draft", &draft, py::arg("last"), py::arg("n_max"),
             "At most `n_max` token ids that may follow the text and `last`.")
        .def("cancel", &Drafter::cancel, "From any thread: end what is being computed, with RequestCancelledError.")
        .def("start", &Drafter::start, "Take back cancel().");
}

}  // namespace pytriattn
