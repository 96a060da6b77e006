#include "template_limits.h"

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <vector>

namespace pytriattn {
namespace {

constexpr size_t template_max_depth = 300;
constexpr size_t template_max_tag =
    3'000;  // characters that are neither space nor in quotation marks: each may be an operator

class TemplateScan {
public:
    explicit TemplateScan(const std::string & source) : source_(source) {}

    void run() {
        while ((at_ = source_.find('{', at_)) != std::string::npos) {
            const char kind = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
            if (kind == '#') {
                at_ = std::min(source_.find("#}", at_ + 2), source_.size() - 1) + 1;
            } else if (kind == '{' || kind == '%') {
                at_ += 2;
                if (kind == '%') {
                    note_block();
                }
                pass_tag();
            } else {
                ++at_;
            }
        }
    }

private:
    // Counts blocks that are open; a branch after `elif` is one more.
    void note_block() {
        size_t first = at_;
        while (first < source_.size() && !std::isalpha(static_cast<unsigned char>(source_[first]))) {
            ++first;
        }
        size_t last = first;
        while (last < source_.size() && std::isalpha(static_cast<unsigned char>(source_[last]))) {
            ++last;
        }
        const std::string word = source_.substr(first, last - first);
        if (word == "if" || word == "for" || word == "macro" || word == "call" || word == "filter") {
            blocks_.push_back(1);
            ++n_open_;
        } else if (word == "elif" && !blocks_.empty()) {
            ++blocks_.back();
            ++n_open_;
        } else if ((word == "endif" || word == "endfor" || word == "endmacro" || word == "endcall" ||
                    word == "endfilter") &&
                   !blocks_.empty()) {
            n_open_ -= blocks_.back();
            blocks_.pop_back();
        }
        check(n_open_);
    }

    // Passes the rest of a tag.
    void pass_tag() {
        size_t depth = 0, n_characters = 0;
        for (; at_ < source_.size(); ++at_) {
            const char c = source_[at_];
            const bool ends = at_ + 1 < source_.size() && source_[at_ + 1] == '}';
            if ((c == '%' && ends) || (c == '}' && ends && depth == 0)) {
                break;
            }
            n_characters += std::isspace(static_cast<unsigned char>(c)) ? 0 : 1;
            if (c == '"' || c == '\'') {
                pass_text(c);
            } else if (c == '(' || c == '[' || c == '{') {
                check(++depth);
            } else if ((c == ')' || c == ']' || c == '}') && depth > 0) {
                --depth;
            }
        }
        if (n_characters > template_max_tag) {
            throw std::runtime_error("a tag of it has more than " + std::to_string(template_max_tag) +
                                     " characters, texts left out");
        }
    }

    void pass_text(char quote) {
        for (++at_; at_ < source_.size() && source_[at_] != quote; ++at_) {
            at_ += source_[at_] == '\\' ? 1 : 0;
        }
    }

    static void check(size_t depth) {
        if (depth > template_max_depth) {
            throw std::runtime_error("it is nested more than " + std::to_string(template_max_depth) + " levels deep");
        }
    }

    const std::string & source_;
    size_t at_ = 0, n_open_ = 0;
    std::vector<size_t> blocks_;
};

}  // namespace

void check_template_limits(const std::string & source) { TemplateScan(source).run(); }

}  // namespace pytriattn
