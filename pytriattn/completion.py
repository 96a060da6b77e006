"""Text completions in OpenAI's form, whole or as a stream."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from pytriattn.errors import InvalidTokenError
from pytriattn.generation import Generation

if TYPE_CHECKING:
    from pytriattn.llama import Llama
    from pytriattn.sampling import SamplingParams

__all__ = ["Completion", "CompletionChunk", "complete"]


class CompletionLogprobs(TypedDict):
    """Log-probabilities of a choice's tokens (natural logarithm); None for the first token of an echoed prompt."""

    tokens: list[str]
    text_offset: list[int]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(TypedDict):
    """One completion. ``finish_reason``: ``stop``, ``length``, or None while it goes on."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class CompletionUsage(TypedDict):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChunk(TypedDict):
    """A piece of a streamed completion."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]


class Completion(CompletionChunk):
    """A whole completion."""

    usage: CompletionUsage


class _Token(NamedTuple):
    """A token of the output with its log-probability and the best ones at its place."""

    text: str
    logprob: float | None
    top: dict[str, float] | None


class _Piece(NamedTuple):
    """Text that is certain to belong to the output, and the tokens that have been read for it."""

    text: str
    tokens: list[_Token]
    finish_reason: str | None


def complete(
    llm: Llama,
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None,
    params: SamplingParams,
    stop: str | Sequence[str] | None,
    stream: bool,
    echo: bool,
    logprobs: int | None,
) -> Completion | Iterator[CompletionChunk]:
    """Complete a prompt; see `Llama.__call__`. The prompt has been read when this returns."""
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    if any(not text for text in stops):
        raise ValueError("a stop string is empty")
    if logprobs is not None and logprobs < 0:
        raise ValueError(f"logprobs is {logprobs}, it must not be negative")
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidTokenError("the prompt is empty; give at least one character")
        prompt = llm.tokenize(prompt, special=True)
    tokens = llm.check_tokens(prompt)
    prompt_logprobs = llm.read_prompt(tokens, logprobs if echo else None)
    generation = Generation(llm, tokens, max_tokens, params)

    pieces = _generated_pieces(llm, generation, stops, logprobs)
    if echo:
        pieces = _with_prompt(llm, tokens, prompt_logprobs, logprobs, pieces)
    chunks = _chunks(llm, pieces, with_logprobs=logprobs is not None)
    return chunks if stream else _join(chunks, len(tokens), generation)


def _named(llm: Llama, top: list[tuple[int, float]]) -> dict[str, float]:
    return {llm.detokenize([token], special=True): value for token, value in top}


def _generated_pieces(llm: Llama, generation: Generation, stops: list[str], logprobs: int | None) -> Iterator[_Piece]:
    """Decode tokens to text; hold back incomplete characters and whatever may become a stop string."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    held, held_tokens = "", list[_Token]()
    for token in generation:
        held += decoder.decode(llm.token_bytes(token))
        if logprobs is not None:
            value, top = llm.next_logprobs(token, logprobs)
            held_tokens.append(_Token(llm.detokenize([token]), value, _named(llm, top)))
        places = [place for place in (held.find(text) for text in stops) if place >= 0]
        if places:
            yield _Piece(held[: min(places)], _tokens_within(held_tokens, min(places)), "stop")
            return
        safe = len(held) - _possible_stop(held, stops)
        if safe > 0:
            yield _Piece(held[:safe], held_tokens, None)
            held, held_tokens = held[safe:], []
    yield _Piece(held + decoder.decode(b"", final=True), held_tokens, generation.finish_reason)


def _possible_stop(text: str, stops: list[str]) -> int:
    """Return how many characters at the end of `text` could be the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def _tokens_within(tokens: list[_Token], n_chars: int) -> list[_Token]:
    """Return the tokens that begin before this many characters."""
    kept, place = list[_Token](), 0
    for token in tokens:
        if place >= n_chars:
            break
        kept.append(token)
        place += len(token.text)
    return kept


def _with_prompt(
    llm: Llama,
    tokens: npt.NDArray[np.int32],
    values: list[tuple[float, list[tuple[int, float]]]],
    logprobs: int | None,
    rest: Iterator[_Piece],
) -> Iterator[_Piece]:
    """Put the prompt before the generated pieces."""
    details = list[_Token]()
    if logprobs is not None:
        details.append(_Token(llm.detokenize([tokens[0]]), None, None))
        for token, (value, top) in zip(tokens[1:], values, strict=True):
            details.append(_Token(llm.detokenize([token]), value, _named(llm, top)))
    yield _Piece(llm.detokenize(tokens), details, None)
    yield from rest


def _chunks(llm: Llama, pieces: Iterator[_Piece], *, with_logprobs: bool) -> Iterator[CompletionChunk]:
    identity, created, offset = f"cmpl-{uuid.uuid4()}", int(time.time()), 0
    for piece in pieces:
        details: CompletionLogprobs | None = None
        if with_logprobs:
            details = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
            place = offset
            for token in piece.tokens:
                details["tokens"].append(token.text)
                details["text_offset"].append(place)
                details["token_logprobs"].append(token.logprob)
                details["top_logprobs"].append(token.top)
                place += len(token.text)
        offset += len(piece.text)
        choice: CompletionChoice = {
            "text": piece.text,
            "index": 0,
            "logprobs": details,
            "finish_reason": piece.finish_reason,
        }
        yield {
            "id": identity,
            "object": "text_completion",
            "created": created,
            "model": llm.identity.name,
            "choices": [choice],
        }


def _join(chunks: Iterator[CompletionChunk], n_prompt: int, generation: Generation) -> Completion:
    parts = [(chunk, chunk["choices"][0]) for chunk in chunks]
    details: CompletionLogprobs | None = None
    if parts[0][1]["logprobs"] is not None:
        details = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
        for _, choice in parts:
            assert choice["logprobs"] is not None  # all chunks have them or none
            details["tokens"] += choice["logprobs"]["tokens"]
            details["text_offset"] += choice["logprobs"]["text_offset"]
            details["token_logprobs"] += choice["logprobs"]["token_logprobs"]
            details["top_logprobs"] += choice["logprobs"]["top_logprobs"]
    text = "".join(choice["text"] for _, choice in parts)
    last, last_choice = parts[-1]
    n = generation.n_generated
    return {
        "id": last["id"],
        "object": last["object"],
        "created": last["created"],
        "model": last["model"],
        "choices": [{"text": text, "index": 0, "logprobs": details, "finish_reason": last_choice["finish_reason"]}],
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n},
    }
