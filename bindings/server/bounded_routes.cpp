#include "bounded_routes.h"

#include "bounded_server.h"
#include "json_text.h"
#include "open_responses.h"

#include "json.h"
#include "log.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace pytriattn::server {
namespace {

using Handler = server_http_context::handler_t;

// The handler, with its whole answers changed.
Handler with(Handler handler, std::function<void(server_http_res &)> change) {
    return [handler = std::move(handler), change = std::move(change)](const server_http_req & request) {
        server_http_res_ptr response = handler(request);
        if (response && response->status == 200 && !response->is_stream()) {
            change(*response);
        }
        return response;
    };
}

// The handler, with what it throws called an error of the request: upstream's handlers throw while they read one, and call
// most of it an error of the server. What goes wrong later is an answer.
Handler with_bad_requests(Handler handler) {
    return [handler = std::move(handler)](const server_http_req & request) {
        try {
            return handler(request);
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::invalid_argument &) {
            throw;
        } catch (const std::out_of_range &) {
            throw std::invalid_argument("the request has a token or an index that is out of range");
        } catch (const std::exception & error) {
            throw std::invalid_argument(error.what());
        }
    };
}

// The handler, with bodies refused that are no JSON.
Handler with_json(Handler handler) {
    return with_bad_requests([handler = std::move(handler)](const server_http_req & request) {
        try {
            parse_json(request.body);
        } catch (const common_json_error & error) {
            throw std::invalid_argument("the request is not JSON: " + std::string(error.what()));
        }
        return handler(request);
    });
}

void add_to_props(server_http_res & response) {
    if (const common_json budget = describe(); !budget.is_null()) {
        common_json props = common_json::parse(response.data);
        props["triattention"] = budget;
        response.data = props.dump_safe();
    }
}

void add_to_slots(server_http_res & response) {
    if (describe().is_null()) {
        return;
    }
    common_json slots = common_json::parse(response.data);
    for (size_t i = 0; i < slots.size(); ++i) {
        slots[i]["triattention"] = describe_slot(slots[i].at("id").get<int>());
    }
    response.data = slots.dump_safe();
}

bool is_header(const std::string & found, const std::string & name) {
    return std::equal(found.begin(), found.end(), name.begin(), name.end(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

// An answer to another request than the client's. Upstream's answer points to the request, until it has ended.
struct AnswerToAnother : server_http_res {
    std::unique_ptr<server_http_req> request;
    server_http_res_ptr answer;  // ends before the request does

    AnswerToAnother(std::unique_ptr<server_http_req> asked, const Handler & handler)
        : request(std::move(asked)), answer(handler(*request)) {
        content_type = answer->content_type;
        status = answer->status;
        data = std::move(answer->data);
        headers = answer->headers;
    }
    void on_complete() override { answer->on_complete(); }
};

// The handler of responses, with whole answers and streams completed to the standard's.
Handler with_open_responses(Handler handler, const common_params & params) {
    return [handler = std::move(handler), &params](const server_http_req & request) -> server_http_res_ptr {
        const bool standard_names =
            std::any_of(request.headers.begin(), request.headers.end(),
                        [](const auto & header) { return is_header(header.first, "OpenResponses-Version"); });
        const auto open = std::make_shared<OpenResponse>(parse_json(request.body), params, standard_names);
        auto asked = std::make_unique<server_http_req>(request);
        asked->body = open->upstream_request().dump_safe();
        auto response = std::make_unique<AnswerToAnother>(std::move(asked), handler);
        if (response->answer->is_stream()) {
            std::swap(response->data, response->answer->data);  // the stream begins with it
            response->next = [open, answer = response->answer.get()](std::string & out) {
                std::string piece;
                const bool has_more = answer->next(piece);
                try {
                    out = open->complete_events(piece, !has_more);
                } catch (const std::exception & error) {
                    LOG_ERR("a piece of a response could not be completed: %s\n", error.what());
                    out = std::move(piece);
                }
                return has_more;
            };
        } else if (response->status == 200 && !response->data.empty()) {
            response->data = open->complete(common_json::parse(response->data)).dump_safe();
        }
        return response;
    };
}

}  // namespace

BoundedRoutes::BoundedRoutes(const common_params & params, server_context & server) : server_routes(params, server) {
    post_responses_oai = with_open_responses(std::move(post_responses_oai), params);
    for (Handler * handler :
         {&post_infill, &post_completions, &post_completions_oai, &post_chat_completions, &post_chat_completions_tok,
          &post_control, &post_responses_oai, &post_responses_tok_oai, &post_anthropic_messages,
          &post_anthropic_count_tokens, &post_apply_template, &post_tokenize, &post_detokenize, &post_embeddings,
          &post_embeddings_oai, &post_rerank, &post_lora_adapters}) {
        *handler = with_json(std::move(*handler));
    }
    post_slots = with_bad_requests(std::move(post_slots));
    get_props = with(get_props, add_to_props);
    get_slots = with(get_slots, add_to_slots);
    get_metrics = with(get_metrics, [](server_http_res & response) { response.data += metrics(); });
}

}  // namespace pytriattn::server
