"""A GGUF model as `llm` sees it: messages in, text and tool calls out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import llm
from llm.parts import Message, ReasoningPart, StreamEvent, TextPart, ToolCallPart, ToolResultPart
from pydantic import Field

from llm_pytriattn.models_file import ConfiguredModel

if TYPE_CHECKING:
    from pytriattn import Llama

__all__ = ["PytriattnModel"]

_loaded: dict[str, Llama] = {}
_loading = threading.Lock()


def _load(configured: ConfiguredModel) -> Llama:
    """Return the model, which stays loaded: the next turn of a conversation reads only what is new."""
    from pytriattn import Llama

    key = json.dumps([configured.path, configured.settings], sort_keys=True)
    with _loading:
        if key not in _loaded:
            _loaded[key] = Llama(configured.path, **configured.settings)
        return _loaded[key]


class PytriattnModel(llm.Model):
    """A model of the models file. It is loaded when it is first asked something."""

    can_stream = True
    supports_schema = True
    supports_tools = True

    class Options(llm.Options):
        """What ``llm -o`` takes; what is not given is as `pytriattn.Llama.create_chat_completion` has it."""

        temperature: float | None = Field(default=None, ge=0, description="0 always takes the likeliest token")
        max_tokens: int | None = Field(default=None, ge=1, description="At most this many tokens")
        seed: int | None = Field(default=None, ge=0, description="For the same answer again")
        top_k: int | None = Field(default=None, ge=0, description="Draw from the k likeliest tokens; 0: all")
        top_p: float | None = Field(
            default=None, ge=0, le=1, description="Draw from the likeliest tokens of this probability together"
        )
        min_p: float | None = Field(
            default=None, ge=0, le=1, description="Drop tokens less likely than this fraction of the likeliest"
        )
        repeat_penalty: float | None = Field(default=None, gt=0, description="Above 1: repeat less")
        stop: str | None = Field(default=None, min_length=1, description="End before this text")
        enable_thinking: bool | None = Field(default=None, description="Let a model think that can do so")

    def __init__(self, configured: ConfiguredModel) -> None:
        """Take a model of the models file."""
        self.model_id = configured.name
        self._configured = configured

    def __str__(self) -> str:
        """Return what ``llm models`` shows."""
        return f"pytriattn: {self.model_id}"

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str | StreamEvent]:
        """Answer; thoughts and tool calls come as events."""
        from pytriattn import TriAttnError

        request: dict[str, Any] = {k: v for k, v in prompt.options.model_dump().items() if v is not None}
        if prompt.schema is not None:
            request["response_format"] = {"type": "json_schema", "json_schema": {"schema": prompt.schema}}
        if prompt.tools:
            request["tools"] = [_tool(tool) for tool in prompt.tools]
        messages = [entry for message in prompt.messages for entry in _messages(message)]
        try:
            model = _load(self._configured)
            yield from _answer(model.create_chat_completion(messages, stream=True, **request), response)
        except TriAttnError as error:
            raise llm.ModelError(str(error)) from error


def _answer(chunks: Any, response: llm.Response) -> Iterator[str | StreamEvent]:
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        if delta.get("reasoning_content"):
            yield StreamEvent(type="reasoning", chunk=delta["reasoning_content"])
        if delta.get("content"):
            yield delta["content"]
        for piece in delta.get("tool_calls", []):
            call = calls.setdefault(piece["index"], {"id": piece.get("id", ""), "name": "", "arguments": ""})
            call["name"] += piece["function"].get("name", "")
            call["arguments"] += piece["function"].get("arguments", "")
        if "usage" in chunk:
            response.set_usage(input=chunk["usage"]["prompt_tokens"], output=chunk["usage"]["completion_tokens"])
    for call in calls.values():
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError as error:
            raise llm.ModelError(
                f"the call of {call['name']} is cut off; raise max_tokens: {call['arguments']}"
            ) from error
        response.add_tool_call(llm.ToolCall(name=call["name"], arguments=arguments, tool_call_id=call["id"] or None))


def _tool(tool: Any) -> dict[str, Any]:
    parameters = tool.input_schema or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description or "", "parameters": parameters},
    }


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    """Return a message of llm in OpenAI's form: one for each tool result, otherwise one."""
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    thoughts = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart))
    calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            yield {"role": "tool", "tool_call_id": part.tool_call_id or "", "name": part.name, "content": part.output}
    if text or thoughts or calls:
        entry: dict[str, Any] = {"role": message.role, "content": text}
        if thoughts:
            entry["reasoning_content"] = thoughts
        if calls:
            entry["tool_calls"] = [
                {
                    "id": call.tool_call_id or "",
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for call in calls
            ]
        yield entry
