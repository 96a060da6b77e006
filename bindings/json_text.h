#pragma once

#include "json.h"

#include <string>

namespace pytriattn {

// Throws common_json_error if this JSON is nested more deeply than llama.cpp's converters, which call themselves for
// each level, can be given.
void check_json_depth(const std::string & text);

// The same for the text of an answer, which may have JSON in it anywhere and is cut off where generating has come to.
void check_answer_depth(const std::string & text);

// Reads JSON. Throws common_json_error if it is none, or nested too deeply.
common_json parse_json(const std::string & text);

}  // namespace pytriattn
