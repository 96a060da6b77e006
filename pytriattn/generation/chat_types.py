"""OpenAI's dictionaries for chat completions."""

from __future__ import annotations

from typing import Any, TypedDict

from pytriattn.generation.completion import CompletionUsage

__all__ = ["ChatChunk", "ChatChunkChoice", "ChatCompletion", "ChatChoice", "ChatDelta", "ChatLogprobs", "ChatMessage"]


class ToolFunction(TypedDict, total=False):
    """The function that a tool call names, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A call of a tool. ``index`` is there in streamed pieces only."""

    index: int
    id: str
    type: str
    function: ToolFunction


class ChatMessage(TypedDict, total=False):
    """A message. ``reasoning_content``: the model's thoughts before its answer, if its template marks them."""

    role: str
    content: str | None
    reasoning_content: str
    tool_calls: list[ToolCall]


class ChatDelta(TypedDict, total=False):
    """The part of a streamed message that a chunk adds."""

    role: str
    content: str | None
    reasoning_content: str
    tool_calls: list[ToolCall]


class TokenLogprob(TypedDict):
    """A token, its log-probability and its UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TokenLogprob):
    """A token of the answer, and the likeliest ones at its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities (natural logarithm) of an answer's tokens."""

    content: list[ChatTokenLogprob]


class ChatChoice(TypedDict):
    """One answer. ``finish_reason``: ``stop``, ``length`` or ``tool_calls``."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatCompletion(TypedDict):
    """A whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatChunkChoice(TypedDict):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class _ChatChunk(TypedDict):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChunkChoice]


class ChatChunk(_ChatChunk, total=False):
    """A piece of a streamed answer. ``usage``, so far, is in the last piece of each answer."""

    usage: CompletionUsage


Tools = list[dict[str, Any]]
