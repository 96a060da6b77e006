#pragma once

#include <string>

struct llama_grammar_parser;

namespace pytriattn {

// Throws GrammarError if a text of one character can be read in so many ways that llama.cpp, which follows each of
// them for each token, would not come to an end: `("a"?){50}`.
void check_ambiguity(const llama_grammar_parser & parser);

}  // namespace pytriattn
