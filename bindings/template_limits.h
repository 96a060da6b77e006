#pragma once

#include <string>

namespace pytriattn {

// Throws std::runtime_error if a Jinja template is nested so deeply that llama.cpp's parser of templates, which calls
// itself for each level, would run out of stack.
void check_template_limits(const std::string & source);

}  // namespace pytriattn
