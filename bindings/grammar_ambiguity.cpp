#include "grammar_ambiguity.h"

#include "bindings.h"

#include "llama-grammar.h"

#include <map>
#include <set>
#include <vector>

namespace pytriattn {
namespace {

constexpr int n_characters = 16;      // of a long token
constexpr double max_ways = 200'000;  // to read it
constexpr size_t max_work = 2'500'000;
constexpr size_t max_samples = 64;  // characters to try with each rule

// What is still to be read: the innermost element last, as in llama.cpp.
using Stack = llama_grammar_stack;

bool ends(const llama_grammar_element & element) {
    return element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT;
}

bool is_character(const llama_grammar_element & element) {
    return element.type == LLAMA_GRETYPE_CHAR || element.type == LLAMA_GRETYPE_CHAR_NOT ||
           element.type == LLAMA_GRETYPE_CHAR_ANY;
}

class Reader {
public:
    explicit Reader(const llama_grammar_parser & parser) : rules_(parser.rules) {}

    void check() {
        std::vector<bool> is_at_beginning(rules_.size()), is_at_end(rules_.size());
        for (const llama_grammar_rule & rule : rules_) {
            const llama_grammar_element * shorter = shorter_repetition(rule);
            for (size_t i = 0; i < rule.size(); ++i) {
                if (rule[i].type == LLAMA_GRETYPE_RULE_REF && &rule[i] != shorter) {
                    is_at_beginning[rule[i].value] = is_at_beginning[rule[i].value] || begins(rule, i);
                    is_at_end[rule[i].value] = is_at_end[rule[i].value] || (!begins(rule, i) && ends(rule[i + 1]));
                }
            }
            if (shorter != nullptr) {
                is_at_beginning[shorter->value] = true;
            }
        }
        for (size_t id = 0; id < rules_.size(); ++id) {
            // what begins another rule is checked with that one
            if (!is_at_beginning[id] || is_at_end[id]) {
                check_beginning(rules_[id]);
            }
            check_middle(rules_[id]);
        }
    }

private:
    // The parser makes of x{0,3} the rules x x{0,2}, x x{0,1} and x: the longest one shows what the others would. Returns
    // the place where such a rule names the next shorter one, null for other rules.
    const llama_grammar_element * shorter_repetition(const llama_grammar_rule & rule) const {
        if (rule.size() < 4 || rule[rule.size() - 2].type != LLAMA_GRETYPE_ALT ||
            rule[rule.size() - 3].type != LLAMA_GRETYPE_RULE_REF) {
            return nullptr;
        }
        const llama_grammar_element & name = rule[rule.size() - 3];
        const llama_grammar_rule & other = rules_[name.value];
        const auto is_same = [](const llama_grammar_element & a, const llama_grammar_element & b) {
            return a.type == b.type && a.value == b.value;
        };
        const size_t n = rule.size() - 3;
        return &other != &rule && other.size() >= n &&
                       std::equal(rule.begin(), rule.begin() + n, other.begin(), is_same)
                   ? &name
                   : nullptr;
    }

    // Whether an alternative begins at an element.
    static bool begins(const llama_grammar_rule & rule, size_t i) {
        return i == 0 || rule[i - 1].type == LLAMA_GRETYPE_ALT;
    }

    void check_beginning(const llama_grammar_rule & rule) {
        std::set<Stack> starts;
        for (size_t i = 0; i < rule.size(); ++i) {
            if (begins(rule, i)) {
                add(ends(rule[i]) ? Stack{} : Stack{&rule[i]}, starts);
            }
        }
        check_starts(starts);
    }

    // Checks what comes after something, with something after it.
    void check_middle(const llama_grammar_rule & rule) {
        for (size_t i = 0; i < rule.size(); ++i) {
            const bool is_name = rule[i].type == LLAMA_GRETYPE_RULE_REF;
            const bool is_repeated =
                is_name && i > 0 && rule[i - 1].type == rule[i].type && rule[i - 1].value == rule[i].value;
            if (is_name && !is_repeated && !begins(rule, i) && !ends(rule[i + 1])) {
                std::set<Stack> starts;
                add({&rule[i]}, starts);
                check_starts(starts);
            }
        }
    }

    void check_starts(const std::set<Stack> & starts) {
        if (starts.size() < 3) {
            return;
        }
        std::set<uint32_t> samples;
        for (const Stack & stack : starts) {
            if (!stack.empty() && is_character(*stack.back()) && samples.size() < max_samples) {
                samples.insert(stack.back()->type == LLAMA_GRETYPE_CHAR ? stack.back()->value : 'a');
            }
        }
        for (const uint32_t sample : samples) {
            read_repeated(starts, sample);
        }
    }

    void read_repeated(const std::set<Stack> & starts, uint32_t character) {
        std::map<Stack, double> ways;
        for (const Stack & stack : starts) {
            ways[stack] = 1;
        }
        std::map<Stack, std::set<Stack>> known;
        for (int i = 0; i < n_characters && !ways.empty(); ++i) {
            std::map<Stack, double> next;
            double n_ways = 0;
            for (const auto & [stack, n] : ways) {
                const auto [found, is_new] = known.try_emplace(stack);
                if (is_new) {
                    found->second = after(stack, character);
                }
                for (const Stack & following : found->second) {
                    next[following] += n;
                    n_ways += n;
                    work(1);
                }
            }
            if (n_ways > max_ways) {
                fail();
            }
            ways = std::move(next);
        }
    }

    std::set<Stack> after(const Stack & stack, uint32_t character) {
        std::set<Stack> result;
        work(1);
        if (stack.empty() || !is_character(*stack.back())) {
            return result;
        }
        const llama_grammar_element * element = stack.back();
        const bool is_negated = element->type == LLAMA_GRETYPE_CHAR_NOT;
        bool found = false;
        do {
            const bool is_range = element[1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER;
            found = found || element->type == LLAMA_GRETYPE_CHAR_ANY ||
                    (element->value <= character && character <= element[is_range ? 1 : 0].value);
            element += is_range ? 2 : 1;
        } while (element->type == LLAMA_GRETYPE_CHAR_ALT);
        if (found != is_negated) {
            Stack rest(stack.begin(), stack.end() - 1);
            if (!ends(*element)) {
                rest.push_back(element);
            }
            add(std::move(rest), result);
        }
        return result;
    }

    // Adds the stacks that one becomes when rules at its top are replaced by what they stand for.
    void add(Stack first, std::set<Stack> & result) {
        std::vector<Stack> todo = {std::move(first)};
        std::set<Stack> seen;
        while (!todo.empty()) {
            Stack stack = std::move(todo.back());
            todo.pop_back();
            work(1 + stack.size() / 8);
            if (!seen.insert(stack).second) {
                continue;
            }
            if (stack.empty() || stack.back()->type != LLAMA_GRETYPE_RULE_REF) {
                result.insert(std::move(stack));
                continue;
            }
            const llama_grammar_element * name = stack.back();
            stack.pop_back();
            if (!ends(name[1])) {
                stack.push_back(name + 1);
            }
            const llama_grammar_rule & rule = rules_[name->value];
            for (size_t i = 0; i < rule.size(); ++i) {
                if (i == 0 || rule[i - 1].type == LLAMA_GRETYPE_ALT) {
                    todo.push_back(stack);
                    if (!ends(rule[i])) {
                        todo.back().push_back(&rule[i]);
                    }
                }
            }
        }
    }

    void work(size_t n) {
        work_ += n;
        if (work_ > max_work) {
            fail();
        }
    }

    [[noreturn]] static void fail() {
        throw GrammarError(
            "the grammar cannot be used: a text can be read in too many ways; do not repeat what may be empty, or give "
            "alternatives that begin alike");
    }

    const llama_grammar_rules & rules_;
    size_t work_ = 0;
};

}  // namespace

void check_ambiguity(const llama_grammar_parser & parser) { Reader(parser).check(); }

}  // namespace pytriattn
