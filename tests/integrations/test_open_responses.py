"""/v1/responses against the Open Responses standard: the types of `openresponses-types`, and OpenAI's client."""

from __future__ import annotations

import json
import pathlib
import urllib.request
from collections.abc import Iterator

import openai
import openresponses_types as standard
import pytest
from pydantic import TypeAdapter

from models.registry import make_tiny_model
from models.vision import make_projector, png_url
from pytriattn.server import Server
from support.chat_examples import EXAMPLES, TOOL_TEMPLATE, WEATHER
from support.server_client import ask

EVENTS = {
    "response.created": standard.ResponseCreatedStreamingEvent,
    "response.in_progress": standard.ResponseInProgressStreamingEvent,
    "response.completed": standard.ResponseCompletedStreamingEvent,
    "response.incomplete": standard.ResponseIncompleteStreamingEvent,
    "response.failed": standard.ResponseFailedStreamingEvent,
    "response.output_item.added": standard.ResponseOutputItemAddedStreamingEvent,
    "response.output_item.done": standard.ResponseOutputItemDoneStreamingEvent,
    "response.content_part.added": standard.ResponseContentPartAddedStreamingEvent,
    "response.content_part.done": standard.ResponseContentPartDoneStreamingEvent,
    "response.output_text.delta": standard.ResponseOutputTextDeltaStreamingEvent,
    "response.output_text.done": standard.ResponseOutputTextDoneStreamingEvent,
    "response.reasoning.delta": standard.ResponseReasoningDeltaStreamingEvent,
    "response.reasoning.done": standard.ResponseReasoningDoneStreamingEvent,
    "response.function_call_arguments.delta": standard.ResponseFunctionCallArgumentsDeltaStreamingEvent,
    "response.function_call_arguments.done": standard.ResponseFunctionCallArgumentsDoneStreamingEvent,
    "error": standard.ErrorStreamingEvent,
}
ENDS = "response.completed", "response.incomplete", "response.failed"
# a model that thinks: the part in <think> is its reasoning
THINKING_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>
{%- endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# a small model ends a text of its own accord where a grammar does
GREETING = 'root ::= "Hello there" [a-z ]{6}'
HELLO: dict = {"input": "Say hello.", "temperature": 0, "grammar": GREETING}
FUNCTION: dict = WEATHER["function"]  # type: ignore[assignment]
TOOL: dict = {"type": "function", **FUNCTION}
# as the standard's messages and calls
ASKED: list = []
for message in EXAMPLES:
    if message["role"] == "user":
        ASKED.append({"type": "message", **message})
    for made in message.get("tool_calls", []):
        ASKED.append({"type": "function_call", "call_id": str(len(ASKED)), **made["function"]})
WITH_TOOLS: dict = {
    "input": [*ASKED, {"type": "message", "role": "user", "content": "The weather in Paris?"}],
    "tools": [TOOL, {**TOOL, "name": "other"}],
    "temperature": 0,
    "max_output_tokens": 80,
}


@pytest.fixture(scope="module")
def server(smollm2: pathlib.Path, sidecar: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TOOL_TEMPLATE)
    settings: dict = {"budget": 256, "triattn_stats": sidecar, "n_ctx": 2048, "n_threads": 1}
    with Server(smollm2, **settings, arguments=["--alias", "smol", "--chat-template-file", str(template)]) as running:
        yield running


def whole(server: Server, **request: object) -> dict:
    answer: dict = ask(f"{server.url}/v1/responses", request)
    standard.ResponseResource.model_validate(answer)
    return answer


def stream(server: Server, *, version: str | None = "latest", **request: object) -> list[dict]:
    """Return the events of a stream, each of which is what the standard says, in the standard's order."""
    headers = {"Content-Type": "application/json", **({"openresponses-version": version} if version else {})}
    body = json.dumps({**request, "stream": True}).encode()
    asked = urllib.request.Request(f"{server.url}/v1/responses", body, headers)
    with urllib.request.urlopen(asked, timeout=600) as answer:
        parts = answer.read().decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    events = []
    for part in parts[:-2]:
        name, data = part.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + events[-1]["type"]
        if version:
            EVENTS[events[-1]["type"]].model_validate(events[-1])
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] in ENDS for event in events] == [False] * (len(events) - 1) + [True]
    told = [event["response"] for event in events if "response" in event]
    assert len({(response["id"], response["created_at"]) for response in told}) == 1
    check_items(events)
    return events


def check_items(events: list[dict]) -> None:
    """Each item is added, filled by its pieces, and done, under one index; the response has the items in this order."""
    kinds = {"response.output_text.delta": "text", "response.reasoning.delta": "text"}
    kinds["response.function_call_arguments.delta"] = "arguments"
    told: dict[int, str] = {}
    done: list[dict] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(told)
            told[event["output_index"]] = ""
            names = {event["item"]["id"]: event["output_index"]}
        elif event["type"] in kinds:
            assert names[event["item_id"]] == event["output_index"]
            told[event["output_index"]] += event["delta"]
        elif event["type"] == "response.output_item.done":
            assert event["output_index"] == len(done)
            done.append(event["item"])
    assert events[-1]["response"]["output"] == done
    for index, item in enumerate(done):
        assert told[index] == (item["arguments"] if "arguments" in item else item["content"][0]["text"])


def test_a_response(server: Server) -> None:
    settings: dict = {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}, "instructions": "Be brief."}
    answer = whole(server, **{**HELLO, **settings}, max_output_tokens=300, tools=None)
    assert {name: answer[name] for name in settings} == settings
    assert answer["status"] == "completed" and answer["completed_at"] >= answer["created_at"]
    assert answer["max_output_tokens"] == 300 and answer["model"] == "smol" and answer["store"] is False
    assert answer["text"] == {"format": {"type": "text"}} and answer["tools"] == [] and answer["tool_choice"] == "auto"
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}


def test_what_is_null_is_as_if_left_out(server: Server) -> None:
    nothing = dict.fromkeys(["instructions", "tools", "text", "reasoning", "metadata", "max_output_tokens", "top_p"])
    first, second = (whole(server, **HELLO, **more)["usage"] for more in (nothing, {}))
    assert first["input_tokens"] == second["input_tokens"]


def test_a_stream(server: Server) -> None:
    events = stream(server, **HELLO, max_output_tokens=300)
    assert events[-1]["type"] == "response.completed"
    answer = whole(server, **HELLO, max_output_tokens=300)
    assert events[-1]["response"]["output"][0]["content"] == answer["output"][0]["content"]


def test_what_a_limit_cuts_is_incomplete(server: Server, long_text: str) -> None:
    for last in (
        stream(server, **HELLO, max_output_tokens=3)[-1]["response"],
        whole(server, **HELLO, max_output_tokens=3),
    ):
        assert last["status"] == last["output"][-1]["status"] == "incomplete" and last["completed_at"] is None
        assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    asked = {"input": long_text[:7000], "temperature": 0, "ignore_eos": True}
    assert whole(server, **asked)["incomplete_details"] == {"reason": "context_length"}


def test_a_conversation(server: Server) -> None:
    turns: list = [{"role": "system", "content": "Be brief."}, {"type": "message", "role": "user", "content": "Hello."}]
    answer = whole(server, input=turns, max_output_tokens=20)
    more = whole(server, input=[*turns, *answer["output"], {"role": "user", "content": "And?"}], max_output_tokens=5)
    assert more["usage"]["input_tokens_details"]["cached_tokens"] >= answer["usage"]["total_tokens"] - 3


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "other"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]},
    ],
)
def test_tools(server: Server, choice: object) -> None:
    """A choice that names tools is held to; upstream takes it for "auto"."""
    answer = whole(server, **WITH_TOOLS, tool_choice=choice)
    calls = [item for item in answer["output"] if item["type"] == "function_call"]
    assert calls[0]["name"] == ("get_weather" if choice == "required" else "other")
    assert isinstance(json.loads(calls[0]["arguments"]), dict)
    assert answer["tool_choice"] == choice and [tool["name"] for tool in answer["tools"]] == ["get_weather", "other"]
    events = stream(server, **WITH_TOOLS, tool_choice=choice)
    arguments = [event["arguments"] for event in events if event["type"].endswith("arguments.done")]
    assert arguments == [call["arguments"] for call in calls]


def test_a_schema(server: Server) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "name": "count", "schema": schema, "strict": True}
    request: dict = {"input": "Count the days of a week.", "temperature": 0, "max_output_tokens": 60}
    answer = whole(server, **request, text={"format": wanted})
    assert isinstance(json.loads(answer["output"][0]["content"][0]["text"])["n"], int)
    assert answer["text"]["format"]["name"] == "count"


def test_reasoning(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    template = tmp_path / "thinking.jinja"
    template.write_text(THINKING_TEMPLATE)
    flags = ["--chat-template-file", str(template), "--reasoning-format", "deepseek"]
    grammar = 'root ::= "<think>" [a-z ]{12} "</think>" [a-z ]{4}'
    request: dict = {**HELLO, "grammar": grammar, "reasoning": {"effort": "low"}}
    with Server(smollm2, n_ctx=1024, n_threads=1, arguments=flags) as server:
        answer = whole(server, **request)
        assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
        assert answer["reasoning"] == {"effort": "low", "summary": None}
        assert 0 < answer["usage"]["output_tokens_details"]["reasoning_tokens"] < answer["usage"]["output_tokens"]
        thought = answer["output"][0]["content"][0]["text"]
        ends = [event for event in stream(server, **request) if event["type"] == "response.reasoning.done"]
        assert [event["text"] for event in ends] == [thought]
        # without the header the names are those that OpenAI's clients know
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none").responses.stream(
            model="smol", input="Say hello.", temperature=0, extra_body={"grammar": grammar}
        ) as events:
            deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
        assert "".join(deltas) == thought


def test_an_image(tmp_path: pathlib.Path) -> None:
    projector = make_projector(tmp_path / "mmproj.gguf")
    content = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": png_url(0)}]
    request: dict = {"input": [{"type": "message", "role": "user", "content": content}], "max_output_tokens": 8}
    flags = ["--mmproj", str(projector), "--chat-template", "chatml"]
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    with Server(model, budget=128, window=32, n_ctx=1024, n_threads=1, arguments=flags) as server:
        assert whole(server, **request)["usage"]["output_tokens"] == 8
        assert stream(server, **request)[-1]["type"] == "response.incomplete"


def test_the_stream_helper_of_openai(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked: dict = {"model": "smol", "input": "Say hello.", "temperature": 0, "extra_body": {"grammar": GREETING}}
    with client.responses.stream(**asked) as events:
        told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events.get_final_response().output_text == told


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "'input' is required"),
        ({**HELLO, "text": 3}, "text is 3, it must be an object"),
        ({**HELLO, "tool_choice": {"type": "web_search"}}, "tool_choice is of type 'web_search'"),
        ({**HELLO, "tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "names none of the tools"),
        ({**HELLO, "previous_response_id": "resp_1"}, "previous_response_id"),
        ({**HELLO, "temperature": "hot"}, "temperature"),
        ([], "must be a JSON object"),
    ],
)
def test_bad_requests(server: Server, request_: object, message: str) -> None:
    answer = ask(f"{server.url}/v1/responses", request_)
    assert answer["status"] == 400 and message in answer["error"]["message"]
    TypeAdapter(dict[str, object]).validate_python(answer["error"])
