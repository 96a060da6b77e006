"""Chat completions in OpenAI's form: the model's own template makes the prompt, and llama.cpp's parser reads the
answer.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.errors import ChatError
from pytriattn.generation.chat_types import (
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    TokenLogprob,
)
from pytriattn.generation.completion import CompletionUsage
from pytriattn.generation.images import has_images, last_text, take_images
from pytriattn.generation.question import AUTO, Question, find_question
from pytriattn.generation.sampling import LlamaGrammar, SamplingParams
from pytriattn.generation.schemas.json_schema import exchange_numbers, held_schema, held_tools
from pytriattn.generation.text_stream import GeneratedToken, TokenValue, check_stops, generated_pieces
from pytriattn.generation.token_stream import Generation, token_limit
from pytriattn.session.session import Session

__all__ = ["ChatRequest", "chat"]


@dataclass(frozen=True)
class ChatRequest:
    """What `Llama.create_chat_completion` was asked."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool
    response_format: Mapping[str, Any] | None
    params: SamplingParams
    max_tokens: int | None
    stop: str | Sequence[str] | None
    n_top_logprobs: int | None
    n: int
    enable_thinking: bool
    template_values: Mapping[str, Any]
    question: int | str | None = AUTO

    def schema(self) -> str:
        """Return the JSON schema that the answer has to follow, as text; empty: none.

        Raises:
            ValueError: `response_format` makes no sense, or there is a grammar too.
            GrammarError: a part of the schema has no equivalent in a grammar.
        """
        text = self._schema()
        return text if text != "{}" else '{"title": "any"}'  # llama.cpp takes {} for no schema

    def _schema(self) -> str:
        wanted = self.response_format or {"type": "text"}
        kind = wanted.get("type")
        if kind == "text":
            return ""
        if self.params.grammar is not None or self.params.json_schema is not None:
            raise ValueError("give a grammar, a json_schema or a response_format, not two of them")
        if kind == "json_object":
            return held_schema(wanted.get("schema") or {"type": "object"})
        if kind == "json_schema":
            schema = (wanted.get("json_schema") or {}).get("schema", wanted.get("schema"))
            if isinstance(schema, Mapping):
                return held_schema(schema)
            raise ValueError("response_format of type json_schema needs {'json_schema': {'schema': {...}}}")
        raise ValueError(f"response_format has the type {kind!r}, it must be 'text', 'json_object' or 'json_schema'")

    def choice_of_tools(self) -> tuple[str, list[Mapping[str, Any]]]:
        """Return ``auto``, ``none`` or ``required``, and the tools to choose from.

        Raises:
            ValueError: `tool_choice` makes no sense.
        """
        tools = list(self.tools or [])
        choice = self.tool_choice if self.tool_choice is not None else ("auto" if tools else "none")
        if isinstance(choice, Mapping):
            name = (choice.get("function") or {}).get("name")
            named = [tool for tool in tools if (tool.get("function") or {}).get("name") == name]
            if not named:
                raise ValueError(f"tool_choice names the function {name!r}, which is not among the tools")
            return "required", named
        if choice not in ("auto", "none", "required"):
            raise ValueError(f"tool_choice is {choice!r}, it must be 'auto', 'none', 'required' or name a function")
        if choice == "required" and not tools:
            raise ValueError("tool_choice is 'required', but there are no tools")
        return choice, tools


def _apply_template(
    templates: core.ChatTemplates, request: ChatRequest, messages_taken: Sequence[Mapping[str, Any]]
) -> core.ChatPrompt:
    choice, given = request.choice_of_tools()
    tools = held_tools(given) if choice != "none" else []
    grammar = request.params.grammar
    try:
        messages = json.dumps(list(messages_taken))
    except RecursionError as error:
        raise ChatError("these messages are nested too deeply; give 'content' as text or a list of parts") from error
    prompt = templates.apply(
        messages=messages,
        tools=json.dumps(tools) if tools else "",
        tool_choice=choice,
        json_schema=request.schema(),
        grammar=grammar.text if isinstance(grammar, LlamaGrammar) else grammar or "",
        parallel_tool_calls=request.parallel_tool_calls,
        enable_thinking=request.enable_thinking,
        reasoning_format="auto",
        add_generation_prompt=True,
        template_values={name: json.dumps(value) for name, value in request.template_values.items()},
    )
    if tools and not prompt.grammar:
        raise ChatError(
            "this model's chat template knows no tools; load it with chat_template=... (a Jinja template that does), "
            "or call "
            "without tools"
        )
    return prompt


def _sampler(
    llm: Session, request: ChatRequest, prompt: core.ChatPrompt, tokens: npt.NDArray[np.int32], index: int
) -> core.Sampler:
    """Return a sampler that follows the grammar of the template, of the response format or of the user."""
    settings = request.params.to_native(llm.n_ctx())
    settings.seed = request.params.native_seed(index)
    if prompt.grammar and request.params.grammar is None and request.params.json_schema is None:
        settings.set_grammar("tool_calls" if request.tools else "output_format", exchange_numbers(prompt.grammar))
        settings.grammar_lazy = prompt.grammar_lazy
        settings.generation_prompt = prompt.generation_prompt
        for text in prompt.preserved_tokens:
            found = llm.tokenize(text, add_bos=False, special=True)
            if len(found) == 1:
                settings.preserve_token(found[0])
        for trigger in prompt.triggers:
            settings.add_trigger(trigger)
    return request.params.prepare(llm, settings, tokens)


def _preserved(llm: Session, prompt: core.ChatPrompt) -> frozenset[int]:
    """Return the control tokens that are a part of the answer: marks around tool calls or thoughts."""
    found = (llm.tokenize(text, add_bos=False, special=True) for text in prompt.preserved_tokens)
    return frozenset(tokens[0] for tokens in found if len(tokens) == 1)


def chat(
    llm: Session, templates: core.ChatTemplates, request: ChatRequest, *, stream: bool
) -> ChatCompletion | Iterator[ChatChunk]:
    """Answer a chat with this template; see `Llama.create_chat_completion`.

    The prompt has been read when this returns.

    Raises:
        ValueError: ``n`` is below 1, or answers are to be streamed of which there is more than one.
        ChatError: the messages are no list, or the template cannot take them.
        ImageError: an image cannot be read.
    """
    if isinstance(request.messages, (str, bytes, Mapping)) or not request.messages:
        raise ChatError("messages must be a list of dictionaries with 'role' and 'content', and not empty")
    messages: Sequence[Mapping[str, Any]] = request.messages
    files: list[bytes] = []
    if has_images(request.messages):
        messages, files = take_images(request.messages, llm.image_marker)
    prompt = _apply_template(templates, request, messages)
    stops = [*check_stops(request.stop), *prompt.stops]
    parted = llm.split_prompt(prompt.prompt, files) if files else None
    tokens = llm.check_tokens(llm.tokenize_prompt(prompt.prompt)) if parted is None else parted.tokens
    n_prompt = len(tokens) if parted is None else parted.n_tokens
    limit = token_limit(request.max_tokens)
    if request.n < 1:
        raise ValueError(f"n is {request.n}, it must be at least 1")
    usage = CompletionUsage(prompt_tokens=n_prompt, completion_tokens=0, total_tokens=n_prompt)
    first = _sampler(llm, request, prompt, tokens, 0)
    question = _question_of(llm, request, tokens)
    llm.read_prompt(tokens, question=question, parted=parted)

    def answers() -> Iterator[ChatChunk]:
        for index in range(request.n):
            if index:
                # all of it is still there, unless an eviction has touched it
                llm.read_prompt(tokens, question=question, parted=parted)
            sampler = first if index == 0 else _sampler(llm, request, prompt, tokens, index)
            generation = Generation(llm, sampler, limit, ignore_eos=request.params.ignore_eos)
            for chunk in _chunks(llm, request, prompt, stops, generation, index):
                if chunk["choices"][0]["finish_reason"] is not None:
                    usage["completion_tokens"] += generation.n_generated
                    usage["total_tokens"] += generation.n_generated
                    chunk["usage"] = usage.copy()
                yield chunk

    identity, created = f"chatcmpl-{uuid.uuid4()}", int(time.time())
    chunks = _stamped(answers(), identity, created, llm.identity.name)
    return chunks if stream else _join(chunks, usage)


def _question_of(llm: Session, request: ChatRequest, tokens: npt.NDArray[np.int32]) -> Question | None:
    """Return where the last user message stands, or as much of its end as may be asked."""
    if request.question != AUTO:
        return find_question(llm, tokens, request.question)
    asked = [last_text(message) for message in request.messages if message.get("role") == "user"]
    if not asked or asked[-1] is None:
        return find_question(llm, tokens, AUTO)
    return find_question(llm, tokens, asked[-1], is_text=True)


def _stamped(chunks: Iterator[ChatChunk], identity: str, created: int, model: str) -> Iterator[ChatChunk]:
    for chunk in chunks:
        yield {**chunk, "id": identity, "created": created, "model": model}


def _chunk(index: int, delta: ChatDelta, logprobs: ChatLogprobs | None, finish_reason: str | None) -> ChatChunk:
    return {
        "id": "",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "",
        "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}],
    }


def _chunks(
    llm: Session, request: ChatRequest, prompt: core.ChatPrompt, stops: list[str], generation: Generation, index: int
) -> Iterator[ChatChunk]:
    answer, text, called = prompt.answer(), "", False
    yield _chunk(index, {"role": "assistant", "content": ""}, None, None)
    for piece in generated_pieces(llm, generation, stops, request.n_top_logprobs, 0, _preserved(llm, prompt)):
        text += piece.text
        is_last = piece.finish_reason is not None
        deltas: list[ChatDelta] = [json.loads(delta) for delta in answer.update(text, not is_last)]
        called = called or any("tool_calls" in delta for delta in deltas)
        details = _logprobs(piece.tokens) if request.n_top_logprobs is not None else None
        # the log-probabilities of a piece go with its first delta, and with an empty one if it has none
        for delta in deltas or ([{}] if details and details["content"] else []):
            yield _chunk(index, delta, details, None)
            details = {"content": []} if details is not None else None
        if is_last:
            reason = "tool_calls" if called and piece.finish_reason == "stop" else piece.finish_reason
            yield _chunk(index, {}, None, reason)


def _logprobs(tokens: list[GeneratedToken]) -> ChatLogprobs:
    def entry(found: TokenValue) -> TokenLogprob:
        return {"token": found.text, "logprob": found.logprob, "bytes": list(found.data)}

    return {
        "content": [
            {**entry(token.value), "top_logprobs": [entry(best) for best in token.top]}
            for token in tokens
            if token.value is not None
        ]
    }


def _join(chunks: Iterator[ChatChunk], usage: CompletionUsage) -> ChatCompletion:
    messages: dict[int, ChatMessage] = {}
    details: dict[int, ChatLogprobs | None] = {}
    reasons: dict[int, str | None] = {}
    last: ChatChunk | None = None
    for last in chunks:
        choice = last["choices"][0]
        index, delta = choice["index"], choice["delta"]
        message = messages.setdefault(index, {"role": "assistant", "content": ""})
        message["content"] = (message["content"] or "") + (delta.get("content") or "")
        if delta.get("reasoning_content"):
            message["reasoning_content"] = message.get("reasoning_content", "") + delta["reasoning_content"]
        for call in delta.get("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append(
                    {
                        "id": call["id"],
                        "type": "function",
                        "function": {"name": call["function"]["name"], "arguments": ""},
                    }
                )
            calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments", "")
        if choice["logprobs"] is not None:
            kept = details.get(index) or {"content": []}
            details[index] = {"content": kept["content"] + choice["logprobs"]["content"]}
        reasons[index] = choice["finish_reason"] or reasons.get(index)
    assert last is not None  # every answer begins with a role
    for message in messages.values():
        if message.get("tool_calls") and not message["content"]:
            message["content"] = None
    return {
        "id": last["id"],
        "object": "chat.completion",
        "created": last["created"],
        "model": last["model"],
        "choices": [
            {"index": i, "message": messages[i], "logprobs": details.get(i), "finish_reason": reasons[i]}
            for i in sorted(messages)
        ],
        "usage": usage,
    }
