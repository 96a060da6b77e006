#include "grammar.h"

#include "bindings.h"

#include "llama-grammar.h"  // private: its parser throws, rule by rule, what the public interface prints

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

}  // namespace

void check_grammar(const llama_vocab * vocab, const std::string & rules) {
    llama_grammar_parser parser(vocab);
    try {
        for (const char * pos = skip_space_and_comments(rules.c_str()); *pos != '\0';) {
            pos = parser.parse_rule(pos);
        }
    } catch (const std::exception & error) {
        throw GrammarError(std::string("the grammar cannot be used: ") + error.what());
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw GrammarError("the grammar cannot be used: it has no rule '" + name + "', which others name");
        }
    }
    if (parser.symbol_ids.count("root") == 0) {
        throw GrammarError("the grammar cannot be used: it has no rule 'root' to begin with");
    }
}

}  // namespace pytriattn
