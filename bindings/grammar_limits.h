#pragma once

#include <string>

namespace pytriattn {

// Throws GrammarError if these GBNF rules would make llama.cpp's parser take more memory or stack than is sensible:
// bounds of a repetition that are the wrong way round or too large, brackets nested too deeply. The parser itself counts
// `max - min` without a sign and repeats whole texts.
void check_grammar_limits(const std::string & rules);

}  // namespace pytriattn
