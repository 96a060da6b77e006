#include "open_responses.h"

#include <algorithm>
#include <utility>

namespace pytriattn::server {
namespace {

const std::string END_OF_EVENT = "\n\n";

}  // namespace

std::string OpenResponse::complete_events(const std::string & piece, bool is_last) {
    std::vector<common_json> events;
    bool is_cut = false;
    for (size_t begin = 0, end; begin < piece.size(); begin = end + END_OF_EVENT.size()) {
        end = std::min(piece.find(END_OF_EVENT, begin), piece.size());
        const std::string event = piece.substr(begin, end - begin);
        const size_t data = event.rfind("data: ", 0) == 0 ? 0 : event.find("\ndata: ");
        if (data == std::string::npos) {
            out_ += event + END_OF_EVENT;  // a sign of life
            continue;
        }
        events.push_back(common_json::parse(event.substr(event.find(' ', data) + 1)));
        is_cut = is_cut || text_of(events.back(), "type") == "response.incomplete";
    }
    if (is_cut) {
        for (size_t i = events.size(); i-- > 0;) {
            if (text_of(events[i], "type") == "response.output_item.done") {
                cut(events[i]["item"]);
                break;
            }
        }
    }
    for (const common_json & event : events) {
        add(event);
    }
    if (is_last && has_ended_) {
        out_ += "data: [DONE]" + END_OF_EVENT;
    }
    return std::exchange(out_, "");
}

void OpenResponse::add(const common_json & event) {
    const std::string type = text_of(event, "type");
    if (type.empty() && event.contains("error")) {
        fail(event.at("error"));
        return;
    }
    common_json data = event;
    if (event.contains("response")) {
        if (type == "response.created" || !has_begun_) {
            begin(event.at("response"));
        }
        if (type == "response.created") {
            return;
        }
        data["response"] = complete(event.at("response"));
        has_ended_ = type == "response.completed" || type == "response.incomplete";
    } else if (type == "response.output_item.added") {
        item_was_added(event.at("item"));
        return;
    } else if (type == "response.output_item.done") {
        item_is_done(event.at("item"));
        return;
    } else {
        data["output_index"] = index_of(text_of(event, "item_id"));
        if (type.find("function_call") == std::string::npos) {
            data["content_index"] = 0;
        }
        if (type.find("output_text") != std::string::npos) {
            data["logprobs"] = common_json::array();
        }
        if (type == "response.content_part.added") {
            data["part"]["annotations"] = common_json::array();
            data["part"]["logprobs"] = common_json::array();
        }
    }
    send(std::move(data));
}

// Upstream leaves this out where nothing was written.
void OpenResponse::begin(const common_json & response) {
    has_begun_ = true;
    fields_["id"] = text_of(response, "id");
    send(common_json::object({{"type", "response.created"}, {"response", fields_}}));
}

void OpenResponse::item_was_added(const common_json & item) {
    const std::string id = text_of(item, "id");
    index_of_item_[id] = n_items_++;
    send(common_json::object({{"type", "response.output_item.added"}, {"output_index", index_of(id)}, {"item", item}}));
    if (text_of(item, "type") == "reasoning") {
        send(common_json::object({
            {"type", "response.content_part.added"},
            {"item_id", id},
            {"output_index", index_of(id)},
            {"content_index", 0},
            {"part", common_json::object({{"type", "reasoning_text"}, {"text", ""}})},
        }));
    }
}

void OpenResponse::item_is_done(const common_json & item) {
    const std::string id = text_of(item, "id"), type = text_of(item, "type");
    if (index_of_item_.count(id) == 0) {
        item_was_added(item);
    }
    common_json event = common_json::object({{"item_id", id}, {"output_index", index_of(id)}});
    if (type == "function_call") {
        event["type"] = "response.function_call_arguments.done";
        event["name"] = text_of(item, "name");
        event["arguments"] = text_of(item, "arguments");
        send(std::move(event));
    } else if (type == "reasoning") {
        const common_json part = item.at("content").front();
        event["content_index"] = 0;
        common_json text = event;
        text["type"] = "response.reasoning_text.done";
        text["text"] = text_of(part, "text");
        send(std::move(text));
        event["type"] = "response.content_part.done";
        event["part"] = part;
        send(std::move(event));
    }
    send(common_json::object({{"type", "response.output_item.done"}, {"output_index", index_of(id)}, {"item", item}}));
}

void OpenResponse::fail(const common_json & error) {
    const std::string message = text_of(error, "message"), type = text_of(error, "type");
    send(common_json::object({
        {"type", "error"},
        {"error", common_json::object({{"type", type}, {"code", type}, {"message", message}, {"param", nullptr}})},
    }));
    common_json response = fields_;
    response["status"] = "failed";
    response["error"] = common_json::object({{"code", type}, {"message", message}});
    send(common_json::object({{"type", "response.failed"}, {"response", response}}));
    has_ended_ = true;
}

void OpenResponse::send(common_json data) {
    std::string type = text_of(data, "type");
    static const std::string openai = "response.reasoning_text.";
    if (standard_names_ && type.rfind(openai, 0) == 0) {
        type = "response.reasoning." + type.substr(openai.size());
        data["type"] = type;
    }
    data["sequence_number"] = n_sent_++;
    out_ += "event: " + type + "\ndata: " + data.dump_safe() + END_OF_EVENT;
}

int32_t OpenResponse::index_of(const std::string & item_id) const {
    const auto found = index_of_item_.find(item_id);
    return found == index_of_item_.end() ? 0 : found->second;
}

}  // namespace pytriattn::server
