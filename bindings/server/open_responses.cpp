#include "open_responses.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace pytriattn::server {
namespace {

common_json object_of(const common_json & object, const char * key) {
    if (!object.is_object() || !object.contains(key)) {
        return common_json::object();
    }
    if (!object.at(key).is_object()) {
        throw std::invalid_argument(std::string(key) + " is " + object.at(key).dump_safe() + ", it must be an object");
    }
    return object.at(key);
}

common_json text_or_null(const common_json & object, const char * key) {
    const std::string text = text_of(object, key);
    return text.empty() ? common_json(nullptr) : common_json(text);
}

double number_or(const common_json & request, const char * key, double other) {
    return request.contains(key) && request.at(key).is_number() ? request.at(key).get<double>() : other;
}

common_json without_nulls(const common_json & request) {
    common_json result = common_json::object();
    for (const auto & [key, value] : request.items()) {
        if (!value.is_null()) {
            result[key] = value;
        }
    }
    return result;
}

common_json array_of(const common_json & request, const char * key) {
    return request.contains(key) && request.at(key).is_array() ? request.at(key) : common_json::array();
}

// The functions of a request; upstream passes tools of other kinds over.
common_json functions_of(const common_json & request) {
    common_json result = common_json::array();
    for (const common_json & tool : array_of(request, "tools")) {
        if (text_of(tool, "type") != "function") {
            continue;
        }
        const bool has_strict = tool.contains("strict") && tool.at("strict").is_boolean();
        result.push_back(common_json::object({
            {"type", "function"},
            {"name", text_of(tool, "name")},
            {"description", text_or_null(tool, "description")},
            {"parameters", tool.contains("parameters") && tool.at("parameters").is_object() ? tool.at("parameters")
                                                                                            : common_json(nullptr)},
            {"strict", has_strict ? tool.at("strict").get<bool>() : true},  // as upstream has it
        }));
    }
    return result;
}

// What a tool_choice that is an object asks for.
struct NamedTools {
    std::string mode;
    std::vector<std::string> names;
};

NamedTools named_tools(const common_json & choice) {
    const std::string type = text_of(choice, "type");
    if (type == "function") {
        return {"required", {text_of(choice, "name")}};
    }
    if (type != "allowed_tools") {
        throw std::invalid_argument("tool_choice is of type '" + type + "', it must be function or allowed_tools");
    }
    NamedTools result = {text_of(choice, "mode"), {}};
    result.mode = result.mode.empty() ? "auto" : result.mode;
    for (const common_json & tool : array_of(choice, "tools")) {
        result.names.push_back(text_of(tool, "name"));
    }
    return result;
}

common_json tool_choice_of(const common_json & request) {
    if (!request.contains("tool_choice")) {
        return "auto";
    }
    const common_json & choice = request.at("tool_choice");
    if (!choice.is_object()) {
        return choice;
    }
    const NamedTools named = named_tools(choice);
    if (text_of(choice, "type") == "function") {
        return common_json::object({{"type", "function"}, {"name", named.names.front()}});
    }
    common_json tools = common_json::array();
    for (const std::string & name : named.names) {
        tools.push_back(common_json::object({{"type", "function"}, {"name", name}}));
    }
    return common_json::object({{"type", "allowed_tools"}, {"tools", tools}, {"mode", named.mode}});
}

common_json format_of(const common_json & format) {
    const std::string type = text_of(format, "type");
    if (type == "json_object") {
        return common_json::object({{"type", type}});
    }
    if (type != "json_schema") {
        return common_json::object({{"type", "text"}});
    }
    return common_json::object({
        {"type", type},
        {"name", text_of(format, "name")},
        {"description", text_or_null(format, "description")},
        {"schema", nullptr},  // the standard has no other value here
        {"strict", true},     // a grammar holds the model to it
    });
}

common_json reasoning_of(const common_json & request) {
    static constexpr std::array<std::string_view, 5> known = {"none", "low", "medium", "high", "xhigh"};
    const std::string effort = text_of(object_of(request, "reasoning"), "effort");
    const bool is_known = std::find(known.begin(), known.end(), effort) != known.end();
    return common_json::object(
        {{"effort", is_known ? common_json(effort) : common_json(nullptr)}, {"summary", nullptr}});
}

// Upstream counts no tokens of reasoning: their share of the characters.
int64_t reasoning_tokens(const common_json & output, int64_t n_tokens) {
    double reasoning = 0, all = 0;
    for (const common_json & item : output) {
        for (const common_json & part : array_of(item, "content")) {
            const auto n = static_cast<double>(text_of(part, "text").size());
            all += n;
            reasoning += text_of(item, "type") == "reasoning" ? n : 0;
        }
        all += static_cast<double>(text_of(item, "arguments").size());
    }
    return all > 0 ? static_cast<int64_t>(static_cast<double>(n_tokens) * reasoning / all + 0.5) : 0;
}

bool is_incomplete(const common_json & response) { return text_of(response, "status") == "incomplete"; }

}  // namespace

std::string text_of(const common_json & object, const char * key) {
    return object.is_object() && object.contains(key) && object.at(key).is_string() ? object.at(key).get<std::string>()
                                                                                    : std::string();
}

void cut(common_json & item) {
    if (item.contains("status")) {
        item["status"] = "incomplete";
    }
}

OpenResponse::OpenResponse(common_json request, const common_params & params, bool standard_names)
    : standard_names_(standard_names) {
    if (!request.is_object()) {
        throw std::invalid_argument("the request must be a JSON object");
    }
    request_ = without_nulls(request);
    const common_params_sampling & sampling = params.sampling;
    const bool has_most =
        request_.contains("max_output_tokens") && request_.at("max_output_tokens").is_number_integer();
    fields_ = common_json::object({
        {"id", ""},
        {"object", "response"},
        {"created_at", static_cast<int64_t>(std::time(nullptr))},
        {"completed_at", nullptr},
        {"status", "in_progress"},
        {"incomplete_details", nullptr},
        {"model", params.model_alias.empty() ? params.model.get_name() : *params.model_alias.begin()},
        {"previous_response_id", nullptr},
        {"instructions", text_or_null(request_, "instructions")},
        {"output", common_json::array()},
        {"error", nullptr},
        {"tools", functions_of(request_)},
        {"tool_choice", tool_choice_of(request_)},
        {"truncation", "disabled"},  // a prompt that is too long is refused
        {"parallel_tool_calls", request_.value("parallel_tool_calls", common_json(true))},
        {"text", common_json::object({{"format", format_of(object_of(object_of(request_, "text"), "format"))}})},
        {"top_p", number_or(request_, "top_p", sampling.top_p)},
        {"presence_penalty", number_or(request_, "presence_penalty", sampling.penalty_present)},
        {"frequency_penalty", number_or(request_, "frequency_penalty", sampling.penalty_freq)},
        {"top_logprobs", 0},
        {"temperature", number_or(request_, "temperature", sampling.temp)},
        {"reasoning", reasoning_of(request_)},
        {"usage", nullptr},
        {"max_output_tokens", has_most ? request_.at("max_output_tokens") : common_json(nullptr)},
        {"max_tool_calls", nullptr},
        {"store", false},
        {"background", false},
        {"service_tier", "default"},
        {"metadata", object_of(request_, "metadata")},
        {"safety_identifier", text_or_null(request_, "safety_identifier")},
        {"prompt_cache_key", text_or_null(request_, "prompt_cache_key")},
    });
}

common_json OpenResponse::upstream_request() const {
    common_json result = request_;
    const common_json format = object_of(object_of(request_, "text"), "format");
    if (const std::string type = text_of(format, "type"); !type.empty() && !result.contains("response_format")) {
        common_json wanted = common_json::object({{"type", type}});
        if (type == "json_schema") {
            wanted["json_schema"] = format;
        }
        result["response_format"] = wanted;
    }
    if (request_.contains("tool_choice") && request_.at("tool_choice").is_object()) {
        const NamedTools named = named_tools(request_.at("tool_choice"));
        common_json tools = common_json::array();
        for (const common_json & tool : array_of(request_, "tools")) {
            if (std::count(named.names.begin(), named.names.end(), text_of(tool, "name")) > 0) {
                tools.push_back(tool);
            }
        }
        if (tools.empty()) {
            throw std::invalid_argument("tool_choice names none of the tools of this request");
        }
        result["tools"] = tools;
        result["tool_choice"] = named.mode;
    }
    if (const common_json & n = result.value("top_logprobs", common_json(nullptr)); n.is_number() && n == 0) {
        result.erase("top_logprobs");  // upstream refuses every number
    }
    return result;
}

common_json OpenResponse::complete(const common_json & response) const {
    common_json result = fields_;
    for (const auto & [key, value] : response.items()) {
        if (key != "created_at") {
            result[key] = value;
        }
    }
    if (!result.at("usage").is_null()) {
        common_json & usage = result["usage"];
        const auto n = usage.at("output_tokens").get<int64_t>();
        usage["output_tokens_details"] =
            common_json::object({{"reasoning_tokens", reasoning_tokens(result.at("output"), n)}});
    }
    const bool is_over = text_of(result, "status") == "completed";
    result["completed_at"] = is_over ? common_json(static_cast<int64_t>(std::time(nullptr))) : common_json(nullptr);
    if (is_incomplete(result)) {
        const common_json & most = result.at("max_output_tokens");
        const bool by_request =
            !most.is_null() && result.at("usage").at("output_tokens").get<int64_t>() >= most.get<int64_t>();
        result["incomplete_details"] =
            common_json::object({{"reason", by_request ? "max_output_tokens" : "context_length"}});
        if (!result.at("output").empty()) {
            cut(result["output"].back());
        }
    }
    return result;
}

common_json FinalResult::to_json() {
    common_json result = server_task_result_cmpl_final::to_json();
    if (res_type != TASK_RESPONSE_TYPE_OAI_RESP || stop != STOP_TYPE_LIMIT) {
        return result;
    }
    if (!result.is_array()) {
        result["status"] = "incomplete";
        return result;
    }
    common_json & last = result.back();
    last["event"] = "response.incomplete";
    last["data"]["type"] = "response.incomplete";
    last["data"]["response"]["status"] = "incomplete";
    return result;
}

}  // namespace pytriattn::server
