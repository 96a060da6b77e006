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

constexpr size_t macro_max_depth = 100, macro_min_depth = 2;
constexpr size_t macro_max_levels =
    1'500;  // of nesting, over all macros that call each other: each takes a kilobyte of stack

class TemplateScan {
public:
    explicit TemplateScan(const std::string & source) : source_(source) {}

    // The place behind the opening tag of each macro.
    const std::vector<size_t> & macros() const { return macros_; }
    size_t deepest() const { return deepest_; }

    void run() {
        while ((at_ = source_.find('{', at_)) != std::string::npos) {
            const char kind = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
            if (kind == '#') {
                at_ = std::min(source_.find("#}", at_ + 2), source_.size() - 1) + 1;
            } else if (kind == '{' || kind == '%') {
                at_ += 2;
                const bool is_macro = kind == '%' && note_block() == "macro";
                pass_tag();
                if (is_macro && at_ + 2 <= source_.size()) {
                    macros_.push_back(at_ + 2);
                }
            } else {
                ++at_;
            }
        }
    }

private:
    // Counts blocks that are open; a branch after `elif` is one more. Returns the tag's first word.
    std::string note_block() {
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
        check(n_open_, 0);
        return word;
    }

    // Passes the rest of a tag; `at_` is then at its two last characters.
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
                check(n_open_, ++depth);
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

    // `blocks` and `brackets`: how many are open.
    void check(size_t blocks, size_t brackets) {
        deepest_ = std::max(deepest_, blocks + brackets);
        const size_t depth = std::max(blocks, brackets);
        if (depth > template_max_depth) {
            throw std::runtime_error("it is nested more than " + std::to_string(template_max_depth) + " levels deep");
        }
    }

    const std::string & source_;
    size_t at_ = 0, n_open_ = 0, deepest_ = 0;
    std::vector<size_t> blocks_, macros_;
};

}  // namespace

std::string limit_template(const std::string & source) {
    TemplateScan scan(source);
    scan.run();
    // Each call of a macro takes stack for all the levels that its call and its body are nested in.
    const size_t limit = std::max(macro_min_depth, std::min(macro_max_depth, macro_max_levels / (scan.deepest() + 1)));
    // A macro gets a copy of the variables of whoever calls it, so that this one counts along the stack of calls.
    const std::string guard = "{% set pytriattn_depth = (pytriattn_depth | default(0)) + 1 %}{% if pytriattn_depth > " +
                              std::to_string(limit) + " %}{{ raise_exception('macros call each other more than " +
                              std::to_string(limit) + " levels deep') }}{% endif ";
    std::string result;
    size_t done = 0;
    for (const size_t place : scan.macros()) {
        result.append(source, done, place - done);
        // the last tag keeps or drops the space behind it as the macro's own does
        result += guard + (source[place - 3] == '-' ? "-%}" : "%}");
        done = place;
    }
    return result.append(source, done, std::string::npos);
}

}  // namespace pytriattn
