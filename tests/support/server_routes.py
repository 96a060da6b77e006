"""The main routes of the server as an OpenAPI description, from which tests make up requests."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "maxLength": 60}
TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": 260}
FEW: Schema = {"type": "integer", "minimum": 0, "maximum": 8}
PART: Schema = {"type": "number", "minimum": 0, "maximum": 2}
YES: Schema = {"type": "boolean"}


def object_(required: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object; `required` are names with spaces between them."""
    return {"type": "object", "properties": properties, "required": required.split()}


def list_of(item: Schema, most: int = 4) -> Schema:
    """Return the schema of a list of 1 to `most` items."""
    return {"type": "array", "items": item, "minItems": 1, "maxItems": most}


def one_of(*values: str) -> Schema:
    """Return the schema of one of these texts."""
    return {"type": "string", "enum": [*values]}


SAMPLING = {
    **{name: PART for name in ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty")},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 300},
    "seed": {"type": "integer", "minimum": -1, "maximum": 2**31 - 1},
    "stop": list_of({"type": "string", "minLength": 1, "maxLength": 5}),
    "samplers": list_of(one_of("top_k", "top_p", "min_p", "temperature", "penalties", "dry", "xtc", "infill"), 8),
    "logit_bias": list_of({"type": "array", "prefixItems": [TOKEN, PART], "items": False, "minItems": 2}),
    "stream": YES,
    "cache_prompt": YES,
    "n_keep": FEW,
    "triattention_budget": {"type": "integer", "minimum": 80, "maximum": 128},
    "triattention_question": {"anyOf": [{"type": "integer", "minimum": -1, "maximum": 129}, TEXT, {"type": "null"}]},
}
PROMPT: Schema = {"anyOf": [TEXT, list_of({"anyOf": [TEXT, TOKEN]}, 12), list_of(list_of(TOKEN, 12), 3)]}
FUNCTION = object_(
    "name parameters",
    name={"type": "string", "pattern": "^[a-z_]{1,12}$"},
    description=TEXT,
    parameters=object_(
        "type properties", type=one_of("object"), properties=object_(city=object_(type=one_of("string")))
    ),
)
TOOLS = list_of(object_("type function", type=one_of("function"), function=FUNCTION), 2)
TEXT_PART = object_("type text", type=one_of("text"), text=TEXT)
MESSAGE: Schema = {
    "anyOf": [
        object_("role content", role=one_of("system", "user", "assistant"), content=TEXT),
        object_("role content", role=one_of("user"), content=list_of(TEXT_PART)),
        object_("role content tool_call_id", role=one_of("tool"), content=TEXT, tool_call_id=TEXT),
    ]
}
CHAT = {
    "messages": list_of(MESSAGE),
    "tools": TOOLS,
    "tool_choice": one_of("auto", "none", "required"),
    "parallel_tool_calls": YES,
    "response_format": object_("type", type=one_of("text", "json_object")),
}
INPUT_PART = object_("type text", type=one_of("input_text"), text=TEXT)
INPUT: Schema = {
    "anyOf": [
        TEXT,
        list_of(object_("role content", role=one_of("user", "system", "developer"), content=TEXT)),
        list_of(object_("type role content", type=one_of("message"), role=one_of("user"), content=list_of(INPUT_PART))),
    ]
}
RESPONSES = {
    "input": INPUT,
    "instructions": TEXT,
    "max_output_tokens": FEW,
    "metadata": object_(),
    "text": object_(format=object_("type", type=one_of("text", "json_object"))),
    "reasoning": object_(effort=one_of("low", "medium", "high")),
    "tools": list_of({**FUNCTION, "properties": {**FUNCTION["properties"], "type": one_of("function")}}, 2),
    "tool_choice": {"anyOf": [one_of("auto", "none"), object_("type name", type=one_of("function"), name=TEXT)]},
}
ANTHROPIC = {
    "messages": list_of(object_("role content", role=one_of("user", "assistant"), content=TEXT)),
    "system": {"anyOf": [TEXT, list_of(TEXT_PART)]},
    "max_tokens": FEW,
    "tools": list_of(object_("name input_schema", name=TEXT, input_schema=object_(type=one_of("object"))), 2),
}

# What is asked with POST; what is asked with GET; and the parameters of a path or a query.
BODIES: dict[str, Schema] = {
    "/completion": object_("prompt", prompt=PROMPT, n_predict=FEW, n_probs=FEW, return_tokens=YES, **SAMPLING),
    "/v1/completions": object_("prompt", prompt=PROMPT, max_tokens=FEW, logprobs=FEW, n=FEW, **SAMPLING),
    "/v1/chat/completions": object_("messages", max_tokens=FEW, logprobs=YES, top_logprobs=FEW, **CHAT, **SAMPLING),
    "/v1/chat/completions/input_tokens": object_("messages", **CHAT),
    "/v1/chat/completions/control": object_("id action", id=TEXT, action=TEXT),
    "/v1/responses": object_("input", **RESPONSES, **SAMPLING),
    "/v1/responses/input_tokens": object_("input", **RESPONSES),
    "/v1/messages": object_("messages max_tokens", **ANTHROPIC, **{k: SAMPLING[k] for k in ("temperature", "stream")}),
    "/v1/messages/count_tokens": object_("messages", **ANTHROPIC),
    "/infill": object_("input_prefix input_suffix", input_prefix=TEXT, input_suffix=TEXT, prompt=TEXT, n_predict=FEW),
    "/v1/embeddings": object_("input", input=PROMPT, encoding_format=one_of("float", "base64")),
    "/v1/rerank": object_("query documents", query=TEXT, documents=list_of(TEXT), top_n=FEW),
    "/tokenize": object_("content", content=TEXT, add_special=YES, with_pieces=YES),
    "/detokenize": object_("tokens", tokens=list_of(TOKEN, 12)),
    "/apply-template": object_("messages", **CHAT),
    "/lora-adapters": list_of(object_("id scale", id=FEW, scale=PART)),
    "/props": object_(),
    "/slots/{slot}": object_("filename", filename=TEXT),
    "/v1/streams/lookup": object_("conversation_ids", conversation_ids=list_of(TEXT)),
}
QUESTIONS = ("/health", "/metrics", "/props", "/slots", "/v1/models", "/lora-adapters", "/v1/stream")
PARAMETERS: dict[str, list[Schema]] = {
    "/slots/{slot}": [
        {"name": "slot", "in": "path", "required": True, "schema": FEW},
        {"name": "action", "in": "query", "required": True, "schema": one_of("save", "restore", "erase")},
    ],
    "/v1/stream": [{"name": "conv_id", "in": "query", "schema": TEXT}],
}


def describe_routes() -> Schema:
    """Return the description (OpenAPI 3.1)."""
    answers = {"responses": {"default": {"description": "an answer, or an error"}}}
    paths: dict[str, Schema] = {path: {"get": dict(answers)} for path in QUESTIONS}
    for path, body in BODIES.items():
        asked = {"required": True, "content": {"application/json": {"schema": body}}}
        paths.setdefault(path, {})["post"] = {"requestBody": asked, **answers}
    for path, parameters in PARAMETERS.items():
        for operation in paths[path].values():
            operation["parameters"] = parameters
    return {"openapi": "3.1.0", "info": {"title": "pytriattn-server", "version": "1"}, "paths": paths}
