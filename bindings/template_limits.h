#pragma once

#include <string>

namespace pytriattn {

// Returns a Jinja template that cannot run out of stack: macros that call each other too deeply raise an error, by a few
// tags that are added to them and print nothing. A template without macros comes back as it is. Throws
// std::runtime_error if it is nested so deeply that llama.cpp's parser of templates, which calls itself for each level,
// would run out of stack.
std::string limit_template(const std::string & source);

}  // namespace pytriattn
