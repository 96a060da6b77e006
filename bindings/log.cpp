// llama.cpp's log lines, kept until Python's logging asks for them. Nothing is ever printed from here.
#include "repr.h"

#include "log.h"
#include "mtmd-helper.h"

#include <deque>
#include <mutex>

namespace pytriattn {
namespace {

constexpr size_t MAX_LINES = 2000;

struct LogLine {
    int level;
    std::string text;
};

class Lines {
public:
    void add(ggml_log_level level, const char * text) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (level == GGML_LOG_LEVEL_CONT && !lines_.empty()) {
            lines_.back().text += text;
            return;
        }
        if (lines_.size() == MAX_LINES) {
            lines_.pop_front();
        }
        lines_.push_back({level, text});
        if (level == GGML_LOG_LEVEL_ERROR) {
            errors_.emplace_back(text);
        }
    }

    std::vector<LogLine> take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::vector<LogLine> result(lines_.begin(), lines_.end());
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
    std::deque<LogLine> lines_;
    std::vector<std::string> errors_;
};

// Never freed: a daemon thread may log while the process ends.
Lines & lines() {
    static Lines & instance = *new Lines;
    return instance;
}

}  // namespace

std::string recent_errors() { return lines().take_errors(); }

void add_log(py::module_ & m) {
    const auto add = [](ggml_log_level level, const char * text, void *) { lines().add(level, text); };
    llama_log_set(add, nullptr);
    mtmd_helper_log_set(add, nullptr);
    common_log_set_verbosity_thold(-1);  // common's own logger prints; ours is the one above
    auto line = py::class_<LogLine>(m, "LogLine", "A line of llama.cpp's log.")
                    .def_readonly("level", &LogLine::level, "1 debug, 2 info, 3 warning, 4 error.")
                    .def_property_readonly(
                        "text", [](const LogLine & self) { return py::bytes(self.text); },
                        "The line as bytes: llama.cpp cuts long values anywhere, also within a character.");
    add_repr(line, {"level", "text"});
    m.def("take_log", [] { return lines().take(); }, "Return the lines that llama.cpp logged since the last call.");
}

}  // namespace pytriattn
