#include "json_text.h"

namespace pytriattn {

void check_json_depth(const std::string & text) {
    constexpr int max_depth = 100;
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if ((c == '[' || c == '{') && ++depth > max_depth) {
            throw common_json_error("this JSON is nested more than " + std::to_string(max_depth) + " levels deep");
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
}

void check_answer_depth(const std::string & text) {
    constexpr int max_depth = 500;
    int depth = 0;
    for (const char c : text) {
        if ((c == '[' || c == '{') && ++depth > max_depth) {
            throw common_json_error("more than " + std::to_string(max_depth) + " brackets are open in it");
        }
        if ((c == ']' || c == '}') && depth > 0) {
            --depth;
        }
    }
}

common_json parse_json(const std::string & text) {
    check_json_depth(text);
    return common_json::parse(text);
}

}  // namespace pytriattn
