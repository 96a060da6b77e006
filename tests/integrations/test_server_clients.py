"""The clients of OpenAI and Anthropic against a server within a budget."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import anthropic
import openai
import pytest

from pytriattn.server import Server
from support.chat_examples import EXAMPLES, TOOL_TEMPLATE, WEATHER, ask

MODEL = "smollm2"


@pytest.fixture(scope="module")
def server(smollm2: pathlib.Path, sidecar: pathlib.Path) -> Iterator[Server]:
    with Server(
        smollm2,
        budget=256,
        triattn_stats=sidecar,
        n_ctx=8192,
        n_threads=1,
        api_key="secret",
        arguments=["--alias", MODEL, "--jinja", "--slots"],
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)


def question(long_text: str) -> str:
    return long_text[:5000] + "\n\nWhat is this text about?"


def test_a_chat(client: openai.OpenAI, long_text: str) -> None:
    messages: list = [{"role": "user", "content": question(long_text)}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=20, temperature=0)
    assert answer.usage is not None and answer.usage.prompt_tokens > 1000 and answer.usage.completion_tokens <= 20
    messages += [answer.choices[0].message, {"role": "user", "content": "And what else?"}]
    more = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5, temperature=0)
    assert more.usage is not None and more.usage.prompt_tokens_details is not None
    cached = more.usage.prompt_tokens_details.cached_tokens
    assert cached is not None and cached >= answer.usage.total_tokens - 1


def test_a_stream_with_its_usage(client: openai.OpenAI, long_text: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question(long_text)}],
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted: dict = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
    request: dict = {"messages": [{"role": "user", "content": "Count the days of a week."}], "response_format": wanted}
    held = client.chat.completions.create(model=MODEL, **request, max_tokens=40, temperature=0)
    assert isinstance(json.loads(held.choices[0].message.content or "")["n"], int)


def test_tools(smollm2: pathlib.Path, sidecar: pathlib.Path, tmp_path: pathlib.Path) -> None:
    template = tmp_path / "tools.jinja"
    template.write_text(TOOL_TEMPLATE)
    settings: dict = {"budget": 256, "triattn_stats": sidecar, "n_ctx": 4096, "n_threads": 1}
    with Server(smollm2, **settings, arguments=["--chat-template-file", str(template)]) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        request: dict = {"model": MODEL, "messages": [*EXAMPLES, ask("Paris")], "tools": [WEATHER], "temperature": 0}
        answer = client.chat.completions.create(**request, tool_choice="required", max_tokens=80)
        calls = answer.choices[0].message.tool_calls
        assert calls is not None and calls[0].function.name == WEATHER["function"]["name"]
        assert isinstance(json.loads(calls[0].function.arguments), dict)
        chunks = list(client.chat.completions.create(**request, tool_choice="required", max_tokens=80, stream=True))
        parts = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
        told = "".join(part.function.arguments or "" for part in parts if part.function)
        assert told == calls[0].function.arguments


def test_completions_and_responses(client: openai.OpenAI, long_text: str) -> None:
    text = client.completions.create(model=MODEL, prompt=long_text[:3000], max_tokens=8, temperature=0)
    assert text.choices[0].text and text.usage is not None and text.usage.completion_tokens == 8
    response = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=12, temperature=0)
    assert response.output_text and response.usage is not None and response.usage.output_tokens <= 12


def test_messages_of_anthropic(server: Server, long_text: str) -> None:
    client = anthropic.Anthropic(base_url=server.url, api_key="secret", max_retries=0)
    message = client.messages.create(
        model=MODEL, max_tokens=16, messages=[{"role": "user", "content": question(long_text)}]
    )
    assert message.content[0].type == "text" and message.usage.output_tokens <= 16
    with client.messages.stream(
        model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Say hello."}]
    ) as stream:
        assert "".join(stream.text_stream)
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "Say hello."}])
    assert counted.input_tokens > 2


def test_errors_are_those_of_the_protocol(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).completions.create(
            model=MODEL, prompt="Hello", max_tokens=1
        )
    with pytest.raises(openai.BadRequestError, match="triattention_budget is 5"):
        client.completions.create(model=MODEL, prompt="Hello", max_tokens=1, extra_body={"triattention_budget": 5})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20000}])


def test_embeddings_without_a_budget(smollm2: pathlib.Path) -> None:
    flags = ["--embedding", "--pooling", "mean", "--alias", MODEL]
    with Server(smollm2, n_ctx=512, n_threads=1, arguments=flags) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        found = client.embeddings.create(model=MODEL, input=["a text", "another"])
        assert [len(item.embedding) for item in found.data] == [576, 576]
