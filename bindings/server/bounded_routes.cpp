#include "bounded_routes.h"

#include "bounded_server.h"
#include "json_text.h"

#include "json.h"

#include <functional>
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

// The handler, with bodies refused that are no JSON: upstream calls that an error of the server.
Handler with_json(Handler handler) {
    return [handler = std::move(handler)](const server_http_req & request) {
        try {
            parse_json(request.body);
        } catch (const common_json_error & error) {
            throw std::invalid_argument("the request is not JSON: " + std::string(error.what()));
        }
        return handler(request);
    };
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

}  // namespace

BoundedRoutes::BoundedRoutes(const common_params & params, server_context & server) : server_routes(params, server) {
    for (Handler * handler :
         {&post_infill, &post_completions, &post_completions_oai, &post_chat_completions, &post_chat_completions_tok,
          &post_control, &post_responses_oai, &post_responses_tok_oai, &post_anthropic_messages,
          &post_anthropic_count_tokens, &post_apply_template, &post_tokenize, &post_detokenize, &post_embeddings,
          &post_embeddings_oai, &post_rerank, &post_lora_adapters}) {
        *handler = with_json(std::move(*handler));
    }
    get_props = with(get_props, add_to_props);
    get_slots = with(get_slots, add_to_slots);
    get_metrics = with(get_metrics, [](server_http_res & response) { response.data += metrics(); });
}

}  // namespace pytriattn::server
