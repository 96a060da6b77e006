// llama.cpp's log lines, kept until Python's logging asks for them. Nothing is ever printed from here.
#include "bindings.h"

#include "log.h"

#include <deque>
#include <mutex>
#include <utility>

namespace pytriattn {
namespace {

constexpr size_t MAX_LINES = 2000;

class Lines {
public:
    void add(ggml_log_level level, const char * text) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (level == GGML_LOG_LEVEL_CONT && !lines_.empty()) {
            lines_.back().second += text;
            return;
        }
        if (lines_.size() == MAX_LINES) {
            lines_.pop_front();
        }
        lines_.emplace_back(level, text);
        if (level == GGML_LOG_LEVEL_ERROR) {
            errors_.emplace_back(text);
        }
    }

    std::vector<std::pair<int, std::string>> take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::vector<std::pair<int, std::string>> result(lines_.begin(), lines_.end());
        lines_.clear();
        return result;
    }

    std::string take_errors() {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::string result;
        for (std::string & line : errors_) {
            while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) {
                line.pop_back();
            }
            result += (result.empty() ? " (llama.cpp: " : "; ") + line;
        }
        errors_.clear();
        return result.empty() ? result : result + ")";
    }

private:
    std::mutex mutex_;
    std::deque<std::pair<int, std::string>> lines_;
    std::vector<std::string> errors_;
};

Lines & lines() {
    static Lines instance;
    return instance;
}

}  // namespace

std::string recent_errors() { return lines().take_errors(); }

void add_log(py::module_ & m) {
    llama_log_set([](ggml_log_level level, const char * text, void *) { lines().add(level, text); }, nullptr);
    common_log_set_verbosity_thold(-1);  // common's own logger prints; ours is the one above
    // bytes: llama.cpp cuts long values anywhere, also within a character
    m.def(
        "take_log",
        [] {
            std::vector<std::pair<int, py::bytes>> result;
            for (const auto & [level, text] : lines().take()) {
                result.emplace_back(level, py::bytes(text));
            }
            return result;
        },
        "Log lines of llama.cpp since the last call: a list of (level, text); "
        "level 1 debug, 2 info, 3 warning, 4 error.");
}

}  // namespace pytriattn
