// The model's chat template and the parser of its answers, from llama.cpp's common. Messages, tools and answers are
// JSON texts in OpenAI's form: what is in them is common's to check.
#include "bindings.h"

#include "json_text.h"
#include "template_limits.h"

#include "chat.h"

#include <cstdio>
#include <exception>
#include <random>
#include <string>

namespace pytriattn {
namespace {

// What a request's template gave: the prompt, how to sample the answer, and how to read it.
struct ChatPrompt {
    common_chat_params params;
    common_chat_parser_params parser;
};

class ChatTemplates {
public:
    ChatTemplates(std::shared_ptr<Model> model, const std::string & source) : model_(std::move(model)) {
        guarded("the chat template cannot be used", [&] {
            if (!source.empty()) {
                templates_ = common_chat_templates_init(model_->model.get(), limit_template(source));
                return;
            }
            const std::string own = own_template(nullptr), with_tools = own_template("tool_use");
            templates_ = common_chat_templates_init(model_->model.get(), own.empty() ? with_tools : own);
            if (!own.empty() && !with_tools.empty()) {
                templates_with_tools_ = common_chat_templates_init(model_->model.get(), with_tools);
            }
        });
    }

    ChatPrompt apply(const std::string & messages, const std::string & tools, const std::string & tool_choice,
                     const std::string & json_schema, const std::string & grammar, bool parallel_tool_calls,
                     bool enable_thinking, const std::string & reasoning_format, bool add_generation_prompt,
                     const std::map<std::string, std::string> & template_values) const {
        ChatPrompt result;
        guarded("the chat template cannot take these messages", [&] {
            common_chat_templates_inputs inputs;
            inputs.messages = common_chat_msgs_parse_oaicompat(parse_json(messages));
            if (!tools.empty()) {
                inputs.tools = common_chat_tools_parse_oaicompat(parse_json(tools));
            }
            check_texts(inputs.messages, json_schema, template_values);
            inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(tool_choice);
            inputs.json_schema = json_schema;
            inputs.grammar = grammar;
            inputs.parallel_tool_calls = parallel_tool_calls;
            inputs.enable_thinking = enable_thinking;
            inputs.reasoning_format = common_reasoning_format_from_name(reasoning_format);
            inputs.add_generation_prompt = add_generation_prompt;
            inputs.chat_template_kwargs = template_values;
            const bool has_tools = templates_with_tools_ && !inputs.tools.empty();
            result.params =
                common_chat_templates_apply(has_tools ? templates_with_tools_.get() : templates_.get(), inputs);
            result.parser = common_chat_parser_params(result.params);
            result.parser.reasoning_format = inputs.reasoning_format;
            result.parser.parse_tool_calls =
                !inputs.tools.empty() && inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_NONE;
            if (!result.params.parser.empty()) {
                result.parser.parser.load(result.params.parser);
            }
        });
        return result;
    }

private:
    // Templates are programs of the model's author: they raise errors of their own.
    template <typename F>
    static void guarded(const char * what, F && work) {
        try {
            work();
        } catch (const std::exception & error) {
            throw ChatError(std::string(what) + ": " + error.what());
        }
    }

    // The model's template of a name, with limits; empty without one.
    std::string own_template(const char * name) const {
        const char * own = llama_model_chat_template(model_->model.get(), name);
        return own == nullptr ? std::string() : limit_template(own);
    }

    // Checks JSON that llama.cpp reads later.
    static void check_texts(const std::vector<common_chat_msg> & messages, const std::string & json_schema,
                            const std::map<std::string, std::string> & template_values) {
        check_json_depth(json_schema);
        for (const auto & value : template_values) {
            check_json_depth(value.second);
        }
        for (const common_chat_msg & message : messages) {
            for (const common_chat_tool_call & call : message.tool_calls) {
                check_json_depth(call.arguments);
            }
        }
    }

    std::shared_ptr<Model> model_;
    common_chat_templates_ptr templates_, templates_with_tools_;
};

// Reads an answer while it grows.
class Answer {
public:
    explicit Answer(ChatPrompt prompt) : prompt_(std::move(prompt)) {}

    // What is new in `text` (all of the answer so far), as deltas in OpenAI's form.
    std::vector<std::string> update(const std::string & text, bool is_partial) {
        try {
            if (!prompt_.params.grammar.empty()) {  // there may be JSON in it
                check_answer_depth(text);
            }
            common_chat_msg next = common_chat_parse(text, is_partial, prompt_.parser);
            next.set_tool_call_ids(ids_, new_call_id);
            std::vector<std::string> deltas;
            for (const common_chat_msg_diff & diff : common_chat_msg_diff::compute_diffs(message_, next)) {
                deltas.push_back(to_json(diff).dump());
            }
            message_ = std::move(next);
            return deltas;
        } catch (const std::exception & error) {
            throw ChatError(std::string("the answer cannot be read: ") + error.what());
        }
    }

private:
    static std::string new_call_id() {
        std::random_device random;
        char text[32];
        std::snprintf(text, sizeof text, "call_%08x%08x", random(), random());
        return text;
    }

    static common_json to_json(const common_chat_msg_diff & diff) {
        common_json delta = common_json::object();
        if (!diff.reasoning_content_delta.empty()) {
            delta["reasoning_content"] = diff.reasoning_content_delta;
        }
        if (!diff.content_delta.empty()) {
            delta["content"] = diff.content_delta;
        }
        if (diff.tool_call_index != std::string::npos) {
            common_json call = common_json::object();
            call["index"] = static_cast<int64_t>(diff.tool_call_index);
            common_json function = common_json::object();
            if (!diff.tool_call_delta.name.empty()) {
                call["id"] = diff.tool_call_delta.id;
                call["type"] = "function";
                function["name"] = diff.tool_call_delta.name;
            }
            function["arguments"] = diff.tool_call_delta.arguments;
            call["function"] = function;
            delta["tool_calls"] = common_json::array({call});
        }
        return delta;
    }

    ChatPrompt prompt_;
    common_chat_msg message_;
    std::vector<std::string> ids_;
};

}  // namespace

void add_chat(py::module_ & m) {
    py::class_<Answer>(m, "Answer").def("update", &Answer::update, py::arg("text"), py::arg("is_partial"));
    py::class_<ChatPrompt>(m, "ChatPrompt")
        .def_property_readonly("prompt", [](const ChatPrompt & p) { return py::bytes(p.params.prompt); })
        .def_property_readonly("grammar", [](const ChatPrompt & p) { return p.params.grammar; })
        .def_property_readonly("grammar_lazy", [](const ChatPrompt & p) { return p.params.grammar_lazy; })
        .def_property_readonly("generation_prompt", [](const ChatPrompt & p) { return p.params.generation_prompt; })
        .def_property_readonly("triggers", [](const ChatPrompt & p) { return p.params.grammar_triggers; })
        .def_property_readonly("preserved_tokens", [](const ChatPrompt & p) { return p.params.preserved_tokens; })
        .def_property_readonly("stops", [](const ChatPrompt & p) { return p.params.additional_stops; })
        .def("answer", [](const ChatPrompt & p) { return std::make_unique<Answer>(p); });
    py::class_<ChatTemplates>(m, "ChatTemplates")
        .def(py::init<std::shared_ptr<Model>, const std::string &>(), py::arg("model"), py::arg("source") = "")
        .def("apply", &ChatTemplates::apply, py::kw_only(), py::arg("messages"), py::arg("tools"),
             py::arg("tool_choice"), py::arg("json_schema"), py::arg("grammar"), py::arg("parallel_tool_calls"),
             py::arg("enable_thinking"), py::arg("reasoning_format"), py::arg("add_generation_prompt"),
             py::arg("template_values"));
}

}  // namespace pytriattn
