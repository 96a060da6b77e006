#pragma once

#include <string>

struct llama_vocab;

namespace pytriattn {

// Throws GrammarError with the reason if llama.cpp's parser does not take these GBNF rules. Without this it says why on
// stderr alone.
void check_grammar(const llama_vocab * vocab, const std::string & rules);

}  // namespace pytriattn
