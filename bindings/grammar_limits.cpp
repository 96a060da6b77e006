#include "grammar_limits.h"

#include "bindings.h"

#include <cctype>

namespace pytriattn {
namespace {

constexpr int grammar_max_depth = 200;
constexpr size_t grammar_max_times = 2000;      // beyond it llama.cpp drops an upper bound and refuses a lower one
constexpr size_t grammar_max_size = 4'000'000;  // elements and rules that repetitions become

// Finds brackets and repetitions as llama.cpp's parser does; what is wrong otherwise is left to the parser.
class GrammarScan {
public:
    explicit GrammarScan(const std::string & rules) : rules_(rules) {}

    void run() {
        while (at_ < rules_.size()) {
            step();
        }
    }

private:
    void step() {
        const char c = rules_[at_];
        if (c == '"' || c == '[') {
            item_ = skip_quoted(c == '"' ? '"' : ']');
        } else if (c == '#') {
            at_ = std::min(rules_.find_first_of("\r\n", at_), rules_.size());
        } else if (c == '<') {
            at_ = std::min(rules_.find('>', at_), rules_.size() - 1) + 1;
            item_ = 1;
        } else if (c == '{') {
            repeat();
        } else {
            if (c == '(' && ++depth_ > grammar_max_depth) {
                fail("brackets are nested more than " + std::to_string(grammar_max_depth) + " deep");
            }
            if (c == ')') {
                --depth_;
            }
            if (!std::isspace(static_cast<unsigned char>(c))) {
                item_ = c == '+' ? item_ + 1 : 1;
            }
            ++at_;
        }
    }

    // Passes a text or a class of characters; returns its length.
    size_t skip_quoted(char end) {
        const size_t first = ++at_;
        while (at_ < rules_.size() && rules_[at_] != end) {
            at_ += rules_[at_] == '\\' ? 2 : 1;
        }
        at_ = std::min(at_ + 1, rules_.size());
        return at_ - first;
    }

    void repeat() {
        const size_t first = at_++;
        const size_t low = number();
        size_t high = low;
        if (at_ < rules_.size() && rules_[at_] == ',') {
            ++at_;
            skip_space();
            const bool has_max = at_ < rules_.size() && std::isdigit(static_cast<unsigned char>(rules_[at_]));
            high = has_max ? number() : std::max<size_t>(low, 1);
        }
        const std::string text = rules_.substr(first, at_ < rules_.size() ? at_ - first + 1 : std::string::npos);
        if (high < low) {
            fail("the repetition " + text + " has its bounds the wrong way round");
        }
        if (high > grammar_max_times) {
            fail("the repetition " + text + " is larger than " + std::to_string(grammar_max_times) +
                 ", the most that can be counted");
        }
        size_ += high * (item_ + 10);  // a rule of its own for each optional one
        if (size_ > grammar_max_size) {
            fail("its repetitions are too many and too large together");
        }
        item_ = high * item_ + 1;
    }

    // A number with the space around it, at most a little above grammar_max_times.
    size_t number() {
        skip_space();
        size_t value = 0;
        for (; at_ < rules_.size() && std::isdigit(static_cast<unsigned char>(rules_[at_])); ++at_) {
            value = std::min(value * 10 + static_cast<size_t>(rules_[at_] - '0'), grammar_max_times + 1);
        }
        skip_space();
        return value;
    }

    void skip_space() {
        while (at_ < rules_.size() && (std::isspace(static_cast<unsigned char>(rules_[at_])) || rules_[at_] == '#')) {
            at_ = rules_[at_] == '#' ? std::min(rules_.find_first_of("\r\n", at_), rules_.size()) : at_ + 1;
        }
    }

    [[noreturn]] static void fail(const std::string & what) {
        throw GrammarError("the grammar cannot be used: " + what);
    }

    const std::string & rules_;
    size_t at_ = 0, item_ = 1, size_ = 0;  // item_: elements of what a repetition would repeat
    int depth_ = 0;
};

}  // namespace

void check_grammar_limits(const std::string & rules) {
    if (rules.find('\0') != std::string::npos) {
        throw GrammarError("the grammar cannot be used: it has a NUL character; write it as \\x00");
    }
    GrammarScan(rules).run();
}

}  // namespace pytriattn
