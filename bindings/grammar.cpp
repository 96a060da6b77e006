#include "grammar.h"

#include "bindings.h"
#include "grammar_ambiguity.h"
#include "grammar_limits.h"

#include "llama-grammar.h"  // private: its parser throws, rule by rule, what the public interface prints

#include <algorithm>
#include <utility>
#include <vector>

namespace pytriattn {
namespace {

const char * skip_space_and_comments(const char * pos) {
    while (*pos == ' ' || *pos == '\t' || *pos == '\r' || *pos == '\n' || *pos == '#') {
        if (*pos == '#') {
            while (*pos != '\0' && *pos != '\r' && *pos != '\n') {
                ++pos;
            }
        } else {
            ++pos;
        }
    }
    return pos;
}

[[noreturn]] void fail(const std::string & what) {
    constexpr size_t n_shown = 300;  // the parser's messages quote all that follows
    throw GrammarError("the grammar cannot be used: " + what.substr(0, n_shown) + (what.size() > n_shown ? "..." : ""));
}

bool ends(const llama_grammar_element & element) {
    return element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT;
}

std::string name_of(const llama_grammar_parser & parser, uint32_t id) {
    const auto found = std::find_if(parser.symbol_ids.begin(), parser.symbol_ids.end(),
                                    [&](const auto & symbol) { return symbol.second == id; });
    return found == parser.symbol_ids.end() ? "?" : found->first;
}

[[noreturn]] void fail_left_recursion(const llama_grammar_parser & parser, uint32_t id) {
    fail("its rule '" + name_of(parser, id) + "' begins with itself (left recursion); let something come before");
}

// A walk over rules along the places where one names another at its beginning, without calls that call themselves.
class Walk {
public:
    Walk(const llama_grammar_parser & parser, std::vector<bool> may_be_empty)
        : parser_(parser), may_be_empty_(std::move(may_be_empty)) {}

    // Calls enter(rule), named(rule, named rule, whether anything follows the name) and leave(rule) in depth-first
    // order. `enter` returns false for a rule that is not to be walked (again).
    template <typename Visitor>
    void run(Visitor & visitor) const {
        for (uint32_t first = 0; first < parser_.rules.size(); ++first) {
            if (!visitor.enter(first)) {
                continue;
            }
            std::vector<Place> open = {{first, 0, false}};
            while (!open.empty()) {
                step(visitor, open);
            }
        }
    }

private:
    struct Place {
        uint32_t rule;
        size_t element;
        bool is_back;  // from the rule that the element names
    };

    template <typename Visitor>
    void step(Visitor & visitor, std::vector<Place> & open) const {
        Place & place = open.back();
        const llama_grammar_rule & elements = parser_.rules[place.rule];
        const llama_grammar_element & element = elements[place.element];
        if (element.type == LLAMA_GRETYPE_RULE_REF) {
            if (!place.is_back && visitor.enter(element.value)) {
                place.is_back = true;
                open.push_back({element.value, 0, false});
                return;
            }
            place.is_back = false;
            visitor.named(place.rule, element.value, !ends(elements[place.element + 1]));
            if (may_be_empty_[element.value]) {
                ++place.element;
                return;
            }
        }
        while (!ends(elements[place.element])) {
            ++place.element;
        }
        if (elements[place.element].type == LLAMA_GRETYPE_END) {
            visitor.leave(place.rule);
            open.pop_back();
        } else {
            ++place.element;
        }
    }

    const llama_grammar_parser & parser_;
    std::vector<bool> may_be_empty_;
};

// llama.cpp's search for left recursion calls itself for each rule that one begins with, and walks a rule again for
// every place that names it.
class SearchCost {
public:
    explicit SearchCost(const llama_grammar_parser & parser) : parser_(parser), rules_(parser.rules.size()) {}

    bool enter(uint32_t id) {
        const bool is_new = !rules_[id].was_entered;
        rules_[id].was_entered = true;
        return is_new;
    }
    void named(uint32_t id, uint32_t other, bool) {
        if (!rules_[other].is_done) {
            fail_left_recursion(parser_, other);
        }
        rules_[id].depth = std::max(rules_[id].depth, rules_[other].depth + 1);
        rules_[id].n_visits += rules_[other].n_visits;
        if (rules_[id].depth > 10'000 || rules_[id].n_visits > 1e7) {
            fail("too many of its rules begin with other rules; write some of these out");
        }
    }
    void leave(uint32_t id) { rules_[id].is_done = true; }

private:
    struct Rule {
        bool was_entered = false, is_done = false;
        size_t depth = 1;
        double n_visits = 1;
    };
    const llama_grammar_parser & parser_;
    std::vector<Rule> rules_;
};

// Finds rules that begin with themselves, with something after: while a grammar is followed they grow without end.
// (Tarjan's strongly connected components.)
class Growth {
public:
    explicit Growth(const llama_grammar_parser & parser) : parser_(parser), rules_(parser.rules.size()) {}

    bool enter(uint32_t id) {
        if (rules_[id].index != 0) {
            return false;
        }
        rules_[id].index = rules_[id].lowest = ++n_;
        rules_[id].is_open = true;
        open_.push_back(id);
        return true;
    }
    void named(uint32_t id, uint32_t other, bool is_followed) {
        if (rules_[other].is_open) {
            rules_[id].lowest = std::min(rules_[id].lowest, rules_[other].lowest);
        }
        if (is_followed) {
            followed_.emplace_back(id, other);
        }
    }
    void leave(uint32_t id) {
        for (bool is_last = rules_[id].lowest != rules_[id].index; !is_last; open_.pop_back()) {
            rules_[open_.back()].is_open = false;
            rules_[open_.back()].component = id;
            is_last = open_.back() == id;
        }
    }
    void check() const {
        for (const auto & [id, other] : followed_) {
            if (rules_[id].component == rules_[other].component) {
                fail_left_recursion(parser_, other);
            }
        }
    }

private:
    struct Rule {
        size_t index = 0, lowest = 0;
        uint32_t component = 0;
        bool is_open = false;
    };
    const llama_grammar_parser & parser_;
    std::vector<Rule> rules_;
    std::vector<uint32_t> open_;
    std::vector<std::pair<uint32_t, uint32_t>> followed_;
    size_t n_ = 0;
};

// Which rules have an alternative of no elements: all that llama.cpp's search knows of.
std::vector<bool> have_empty_alternative(const llama_grammar_rules & rules) {
    std::vector<bool> result;
    for (const llama_grammar_rule & rule : rules) {
        bool is_empty = false, is_start = true;
        for (const llama_grammar_element & element : rule) {
            is_empty = is_empty || (is_start && ends(element));
            is_start = ends(element);
        }
        result.push_back(is_empty);
    }
    return result;
}

// Which rules may become empty, by way of other rules too.
std::vector<bool> may_be_empty(const llama_grammar_rules & rules) {
    std::vector<bool> result = have_empty_alternative(rules);
    struct Alternative {
        uint32_t rule;
        size_t n_left;  // rules it names that are not known to become empty
    };
    std::vector<Alternative> alternatives;
    std::vector<std::vector<size_t>> named_in(rules.size());
    for (uint32_t id = 0; id < rules.size(); ++id) {
        alternatives.push_back({id, 0});
        for (const llama_grammar_element & element : rules[id]) {
            if (element.type == LLAMA_GRETYPE_ALT) {
                alternatives.push_back({id, 0});
            } else if (!ends(element)) {
                ++alternatives.back().n_left;
                if (element.type == LLAMA_GRETYPE_RULE_REF) {
                    named_in[element.value].push_back(alternatives.size() - 1);
                }
            }
        }
    }
    std::vector<uint32_t> todo;
    for (uint32_t id = 0; id < rules.size(); ++id) {
        if (result[id]) {
            todo.push_back(id);
        }
    }
    while (!todo.empty()) {
        const uint32_t id = todo.back();
        todo.pop_back();
        for (const size_t i : named_in[id]) {
            if (--alternatives[i].n_left == 0 && !result[alternatives[i].rule]) {
                result[alternatives[i].rule] = true;
                todo.push_back(alternatives[i].rule);
            }
        }
    }
    return result;
}

void check_left_recursion(const llama_grammar_parser & parser) {
    SearchCost cost(parser);
    Walk(parser, have_empty_alternative(parser.rules)).run(cost);
    Growth growth(parser);
    Walk(parser, may_be_empty(parser.rules)).run(growth);
    growth.check();
}

}  // namespace

void check_grammar(const llama_vocab * vocab, const std::string & rules) {
    check_grammar_limits(rules);
    llama_grammar_parser parser(vocab);
    try {
        for (const char * pos = skip_space_and_comments(rules.c_str()); *pos != '\0';) {
            pos = parser.parse_rule(pos);
        }
    } catch (const std::exception & error) {
        fail(error.what());
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            fail("it has no rule '" + name + "', which others name");
        }
    }
    if (parser.symbol_ids.count("root") == 0) {
        fail("it has no rule 'root' to begin with");
    }
    check_left_recursion(parser);
    check_ambiguity(parser);
}

}  // namespace pytriattn
