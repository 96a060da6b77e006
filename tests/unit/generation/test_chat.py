"""Chat completions on SmolLM2: OpenAI's dictionaries, grammars, tools, streams."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pytriattn import ChatError, GrammarError, GrammarWarning, InvalidTokenError, Llama, LlamaGrammar, TriAttentionStats
from support.chat_examples import EXAMPLES, TOOL_TEMPLATE, WEATHER, ask, call

MESSAGES = [
    {"role": "system", "content": "Answer in English, in one short sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=2048, seed=1) as llm:
        yield llm


@pytest.fixture(scope="module")
def tool_llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=2048, seed=1, chat_template=TOOL_TEMPLATE) as llm:
        yield llm


def answer(llm: Llama, **options: Any) -> Any:
    options = {"max_tokens": 24, "temperature": 0, **options}
    return llm.create_chat_completion(options.pop("messages", MESSAGES), **options)


def test_an_answer_has_openais_form(llm: Llama) -> None:
    result = answer(llm)
    assert result["object"] == "chat.completion"
    assert result["id"].startswith("chatcmpl-")
    (choice,) = result["choices"]
    assert choice["message"]["role"] == "assistant"
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    usage = result["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 24


def test_the_models_own_template_makes_the_prompt(llm: Llama) -> None:
    answer(llm, max_tokens=1)
    expected = llm.tokenize(
        "<|im_start|>system\nAnswer in English, in one short sentence.<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        special=True,
    )
    assert llm.n_tokens == len(expected)
    assert answer(llm, max_tokens=1)["usage"]["prompt_tokens"] == len(expected)
    assert llm.kv_stats()["prompt_tokens_reused"] == len(expected) - 1


def test_a_stream_says_the_same(llm: Llama) -> None:
    whole = answer(llm)["choices"][0]
    chunks = list(answer(llm, stream=True))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole["finish_reason"]]


def test_characters_are_whole_in_a_stream(llm: Llama) -> None:
    """The tokenizer cuts most of these into several tokens."""
    chunks = answer(llm, stream=True, max_tokens=60, grammar='root ::= "🙂é漢🙂字"')
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(pieces) == "🙂é漢🙂字"
    assert not any("\ufffd" in piece for piece in pieces)


def test_stop_and_seed(llm: Llama) -> None:
    whole = answer(llm)["choices"][0]["message"]["content"]
    stopped = answer(llm, stop=whole[4:8])["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == (whole[:4], "stop")
    first, second, other = (answer(llm, temperature=1.0, seed=seed)["choices"][0]["message"] for seed in (5, 5, 6))
    assert first == second != other


def test_log_probabilities(llm: Llama) -> None:
    choice = answer(llm, logprobs=True, top_logprobs=3, max_tokens=6)["choices"][0]
    entries = choice["logprobs"]["content"]
    assert len(entries) == 6
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    for entry in entries:
        assert entry["bytes"] == list(entry["token"].encode())
        assert len(entry["top_logprobs"]) == 3
        assert entry["logprob"] == pytest.approx(entry["top_logprobs"][0]["logprob"])  # greedy
    assert answer(llm, max_tokens=2)["choices"][0]["logprobs"] is None
    streamed = [
        c["choices"][0]["logprobs"] for c in answer(llm, logprobs=True, top_logprobs=3, max_tokens=6, stream=True)
    ]
    assert [e for details in streamed if details for e in details["content"]] == entries


def test_several_answers_to_one_prompt(llm: Llama) -> None:
    decoded = llm.kv_stats()["tokens_decoded"]
    result = answer(llm, n=3, temperature=1.0, max_tokens=8, messages=[{"role": "user", "content": "Tell me a joke."}])
    assert [choice["index"] for choice in result["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in result["choices"]}) > 1
    # the prompt is read once; each further answer reads its last token again
    read = llm.kv_stats()["tokens_decoded"] - decoded
    assert read <= result["usage"]["prompt_tokens"] + result["usage"]["completion_tokens"]


# --- formats ---


def test_json_objects(llm: Llama) -> None:
    value = json.loads(
        answer(llm, response_format={"type": "json_object"}, max_tokens=100)["choices"][0]["message"]["content"]
    )
    assert isinstance(value, dict)


@pytest.mark.parametrize("stream", [False, True])
def test_json_schemas(llm: Llama, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 10}, "inhabitants": {"type": "integer"}},
        "required": ["capital", "inhabitants"],
        "additionalProperties": False,
    }
    for response_format in (
        {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
        {"type": "json_object", "schema": schema},
    ):
        result = answer(llm, response_format=response_format, max_tokens=100, stream=stream)
        text = (
            "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in result)
            if stream
            else result["choices"][0]["message"]["content"]
        )
        value = json.loads(text)
        assert set(value) == {"capital", "inhabitants"}
        assert isinstance(value["inhabitants"], int)


def test_grammars(llm: Llama) -> None:
    rules = 'root ::= "yes" | "no"'
    for grammar in (rules, LlamaGrammar.from_string(rules)):
        assert answer(llm, grammar=grammar)["choices"][0]["message"]["content"] in ("yes", "no")
        assert llm("Is Paris in France? ", grammar=grammar, temperature=0)["choices"][0]["text"] in ("yes", "no")
    number = LlamaGrammar.from_json_schema({"type": "integer", "minimum": 10, "maximum": 99})
    assert 10 <= int(llm("A number: ", grammar=number)["choices"][0]["text"]) <= 99  # type: ignore[index]
    assert json.loads(llm("JSON: ", json_schema={"type": "boolean"})["choices"][0]["text"]) in (True, False)


def with_pattern(pattern: str) -> dict[str, Any]:
    # "pattern" as a name and among values is none
    inner = {"pattern": {"type": "string", "pattern": pattern}, "kind": {"enum": [{"pattern": "anything"}]}}
    return {"type": "object", "properties": {"inner": {"anyOf": [{"type": "object", "properties": inner}]}}}


@pytest.mark.parametrize("pattern", ["[0-9]{4}", "^(?=a)b$", r"^\bword$"])
def test_patterns_that_a_grammar_cannot_follow_are_refused(llm: Llama, pattern: str) -> None:
    """llama.cpp would print a warning and take any string."""
    schema, message = with_pattern(pattern), re.escape(f"the pattern {pattern!r} has no equivalent")
    with pytest.raises(GrammarError, match=message):
        LlamaGrammar.from_json_schema(schema)
    with pytest.raises(GrammarError, match=message):
        llm("A: ", json_schema=json.dumps(schema))
    for response_format in (
        {"type": "json_object", "schema": schema},
        {"type": "json_schema", "json_schema": {"schema": schema}},
    ):
        with pytest.raises(GrammarError, match=message):
            answer(llm, response_format=response_format)


def test_patterns_are_followed(llm: Llama) -> None:
    text = llm("A year: ", json_schema={"type": "string", "pattern": "^(19|20)[0-9]{2}$"}, max_tokens=20)
    assert re.fullmatch(r"(19|20)\d\d", json.loads(text["choices"][0]["text"]))  # type: ignore[index]
    LlamaGrammar.from_json_schema(with_pattern("^a+$"))


def test_patterns_of_tools_are_warned_of(tool_llm: Llama) -> None:
    tool = {"type": "function", "function": {"name": "when", "parameters": with_pattern("[0-9]{4}")}}
    with pytest.warns(GrammarWarning, match=r"the tool 'when' wants an argument of the pattern '\[0-9\]\{4\}'"):
        answer(tool_llm, tools=[tool], tool_choice="auto")


def test_what_cannot_be_asked_for(llm: Llama) -> None:
    with pytest.raises(GrammarError, match="grammar cannot be used"):
        answer(llm, grammar="root ::= [")
    with pytest.raises(GrammarError, match="JSON schema"):
        answer(llm, json_schema="{no json")
    with pytest.raises(ValueError, match="not both"):
        answer(llm, grammar='root ::= "a"', json_schema={"type": "string"})
    with pytest.raises(ValueError, match="response_format has the type 'xml'"):
        answer(llm, response_format={"type": "xml"})
    with pytest.raises(ValueError, match="json_schema needs"):
        answer(llm, response_format={"type": "json_schema"})
    with pytest.raises(ChatError, match="messages must be a list"):
        answer(llm, messages=[])
    with pytest.raises(ChatError, match="template cannot take"):
        answer(llm, messages=[{"role": "user"}])
    with pytest.raises(ChatError, match="knows no tools"):
        answer(llm, tools=[WEATHER])
    with pytest.raises(ValueError, match="'required', but there are no tools"):
        answer(llm, tool_choice="required")
    with pytest.raises(TypeError, match="unknown argument 'temprature'"):
        answer(llm, temprature=1)
    with pytest.raises(InvalidTokenError, match="logit_bias: token 999999"):
        answer(llm, logit_bias={999999: 1.0})
    assert "Paris" in answer(llm)["choices"][0]["message"]["content"]  # and it still works


def test_a_template_with_an_error(smollm2: pathlib.Path) -> None:
    with (
        Llama(smollm2, n_ctx=256, chat_template="{{ raise_exception('no such role') }}") as llm,
        pytest.raises(ChatError, match="no such role"),
    ):
        llm.create_chat_completion(MESSAGES)
    with Llama(smollm2, n_ctx=256, chat_template="{% for %}") as llm, pytest.raises(ChatError):
        llm.create_chat_completion(MESSAGES)


# --- tools ---


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(tool_llm: Llama, choice: Any, stream: bool) -> None:
    options = {"messages": [*EXAMPLES, ask("Paris")], "tools": [WEATHER], "tool_choice": choice, "max_tokens": 80}
    if stream:
        chunks = list(answer(tool_llm, stream=True, **options))
        calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert {c["index"] for c in calls} == {0}
        assert len(calls) > 3  # arguments come piece by piece
        assert calls[0]["function"]["name"] == "get_weather"
        assert calls[0]["id"].startswith("call_")
        arguments = "".join(c["function"]["arguments"] for c in calls)
        reason = chunks[-1]["choices"][0]["finish_reason"]
    else:
        (found,) = answer(tool_llm, **options)["choices"]
        (made,) = found["message"]["tool_calls"]
        assert (made["type"], made["function"]["name"]) == ("function", "get_weather")
        assert found["message"]["content"] is None
        arguments, reason = made["function"]["arguments"], found["finish_reason"]
    assert json.loads(arguments) == {"city": "Paris"}
    assert reason == "tool_calls"


def test_arguments_follow_the_tools_schema(tool_llm: Llama) -> None:
    """The model would like to write a longer name than the schema allows."""
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 80}
    (choice,) = answer(tool_llm, messages=[*EXAMPLES, ask("Constantinople")], **options)["choices"]
    (made,) = choice["message"]["tool_calls"]
    assert len(json.loads(made["function"]["arguments"])["city"]) <= 8


def test_tools_need_not_be_used(tool_llm: Llama) -> None:
    free = answer(tool_llm, tools=[WEATHER], tool_choice="auto")["choices"][0]
    assert free["finish_reason"] != "tool_calls"
    assert free["message"]["content"]
    with pytest.raises(ValueError, match="'other', which is not among"):
        answer(tool_llm, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "other"}})
    with pytest.raises(ValueError, match="tool_choice is 'maybe'"):
        answer(tool_llm, tools=[WEATHER], tool_choice="maybe")
    assert answer(tool_llm, tools=[WEATHER], tool_choice="none")["choices"][0]["message"]["content"]


def test_results_of_tools_go_into_the_prompt(tool_llm: Llama) -> None:
    messages = [*MESSAGES, call("Paris"), {"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    short, long = (answer(tool_llm, messages=m, max_tokens=1)["usage"]["prompt_tokens"] for m in (MESSAGES, messages))
    assert long > short + 20


# --- under a budget ---


@pytest.mark.slow
def test_a_long_chat_in_a_small_cache(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    settings: dict[str, Any] = {"budget": 256, "n_ctx": 8192, "seed": 1, "reuse_evicted": False}
    with Llama(smollm2, triattn_stats=smollm2_stats, **settings) as llm:
        messages: list[dict[str, str]] = [{"role": "system", "content": "You are a storyteller."}]
        for turn in range(8):
            messages.append({"role": "user", "content": f"Chapter {turn}: go on with the story, at length."})
            reply = answer(llm, messages=messages, max_tokens=60, temperature=0.8)
            messages.append(reply["choices"][0]["message"])
            stats = llm.kv_stats()
            assert stats["cells_used"] < 256 + 128
            assert stats["prompt_tokens_reused"] + stats["prompt_tokens_read"] == reply["usage"]["prompt_tokens"]
            if turn == 1:
                assert stats["prompt_tokens_reused"] > 50  # the first turn is not read again
        assert stats["tokens_seen"] > 512
        assert stats["prompt_rereads"] > 0
        assert stats["prompt_tokens_reused"] == 0
