// The Open Responses standard (openresponses.org, 2026-04-24) for /v1/responses: upstream answers with a part of its
// fields, and these are all. What OpenAI's clients read stays where it is.
#pragma once

#include "common.h"
#include "json.h"
#include "server-task.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pytriattn::server {

// A field that is a text; empty if it is none.
std::string text_of(const common_json & object, const char * key);

// Makes an item one that the model was writing when a limit cut it.
void cut(common_json & item);

// A request for a response, and what becomes of upstream's answer to it.
class OpenResponse {
public:
    // `standard_names`: reasoning is streamed in events of the standard's names, which OpenAI's clients do not know.
    // Throws std::invalid_argument.
    OpenResponse(common_json request, const common_params & params, bool standard_names);

    // The request, with what upstream's converter does not read (text.format, a tool_choice that names tools) put where
    // upstream looks for it.
    common_json upstream_request() const;

    // A whole response, from upstream's.
    common_json complete(const common_json & response) const;

    // A piece of a stream, from a piece of upstream's. `is_last`: no other follows.
    std::string complete_events(const std::string & piece, bool is_last);

private:
    void add(const common_json & event);
    void begin(const common_json & response);
    void item_was_added(const common_json & item);
    void item_is_done(const common_json & item);
    void fail(const common_json & error);
    void send(common_json data);
    int32_t index_of(const std::string & item_id) const;

    common_json request_;
    common_json fields_;  // of every response
    bool standard_names_;
    // of the stream
    std::string out_;
    int32_t n_sent_ = 0, n_items_ = 0;
    bool has_begun_ = false, has_ended_ = false;
    std::map<std::string, int32_t> index_of_item_;
};

// Upstream's result, which calls every response completed: one that a limit has cut is incomplete.
struct FinalResult : server_task_result_cmpl_final { common_json to_json() override; };

}  // namespace pytriattn::server
