"""Text completions in OpenAI's form, whole or as a stream."""

from __future__ import annotations

import codecs
import itertools
import operator
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from pytriattn.errors import InvalidTokenError
from pytriattn.generation import Generation, token_limit

if TYPE_CHECKING:
    from pytriattn.llama import Llama
    from pytriattn.sampling import SamplingParams

__all__ = [
    "Completion",
    "CompletionChunk",
    "CompletionUsage",
    "GeneratedToken",
    "Piece",
    "check_stops",
    "complete",
    "generated_pieces",
]


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


class GeneratedToken(NamedTuple):
    """A token of the output: where its text starts, its log-probability and the best ones at its place."""

    start: int
    text: str
    logprob: float | None
    top: dict[str, float] | None


class Piece(NamedTuple):
    """Text that is certain to belong to the output, and the tokens that have been read for it."""

    text: str
    tokens: list[GeneratedToken]
    finish_reason: str | None


def check_stops(stop: str | Sequence[str] | None) -> list[str]:
    """Return the strings to stop at.

    Raises:
        ValueError: one is empty, or no string.
    """
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    if not all(isinstance(text, str) and text for text in stops):
        raise ValueError(f"stop is {stop!r}, it must be strings that are not empty")
    return stops


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
    stops = check_stops(stop)
    if logprobs is not None and operator.index(logprobs) < 0:
        raise ValueError(f"logprobs is {logprobs}, it must not be negative")
    text = prompt if isinstance(prompt, str) else None
    if text is not None:
        if not text:
            raise InvalidTokenError("the prompt is empty; give at least one character")
        prompt = llm.tokenize(text, special=True)
    tokens = llm.check_tokens(prompt)  # type: ignore[arg-type]
    sampler = llm.make_sampler(params, tokens)
    limit = token_limit(max_tokens)
    prompt_logprobs = llm.read_prompt(tokens, logprobs if echo else None)
    generation = Generation(llm, sampler, limit, ignore_eos=params.ignore_eos)

    shown = "" if not echo else text if text is not None else llm.detokenize(tokens, special=True)
    pieces = generated_pieces(llm, generation, stops, logprobs, len(shown))
    if echo:
        details = [] if logprobs is None else _prompt_tokens(llm, tokens, prompt_logprobs)
        pieces = itertools.chain([Piece(shown, details, None)], pieces)
    chunks = _chunks(llm, pieces, with_logprobs=logprobs is not None)
    return chunks if stream else _join(chunks, len(tokens), generation)


def _named(llm: Llama, top: list[tuple[int, float]]) -> dict[str, float]:
    named: dict[str, float] = {}
    for (
        token,
        value,
    ) in top:  # best first: of several fragments of characters, which all read U+FFFD, the best one counts
        named.setdefault(llm.detokenize([token], special=True), value)
    return named


def generated_pieces(
    llm: Llama,
    generation: Generation,
    stops: list[str],
    logprobs: int | None,
    start: int,
    shown: frozenset[int] = frozenset(),
) -> Iterator[Piece]:
    """Decode tokens to text; hold back incomplete characters and whatever may become a stop string.

    Args:
        llm: what generates.
        generation: its tokens.
        stops: end before any of these.
        logprobs: so many best tokens for each; None: no log-probabilities.
        start: how long the text before is.
        shown: control tokens that are to be written as text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    held, held_tokens = "", list[GeneratedToken]()
    for token in generation:
        place = start + len(held)
        held += decoder.decode(llm.token_bytes(token, token in shown))
        if logprobs is not None:
            value, top = llm.next_logprobs(token, logprobs)
            held_tokens.append(GeneratedToken(place, llm.detokenize([token]), value, _named(llm, top)))
        found = [at for at in (held.find(text) for text in stops) if at >= 0]
        if found:
            end = min(found)
            yield Piece(held[:end], [t for t in held_tokens if t.start < start + end], "stop")
            return
        safe = len(held) - _possible_stop(held, stops)
        if safe > 0:
            start += safe
            yield Piece(held[:safe], [t for t in held_tokens if t.start < start], None)
            held, held_tokens = held[safe:], [t for t in held_tokens if t.start >= start]
    yield Piece(held + decoder.decode(b"", final=True), held_tokens, generation.finish_reason)


def _possible_stop(text: str, stops: list[str]) -> int:
    """Return how many characters at the end of `text` could be the beginning of a stop string."""
    longest = max(map(len, stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def _prompt_tokens(
    llm: Llama, tokens: npt.NDArray[np.int32], values: list[tuple[float, list[tuple[int, float]]]]
) -> list[GeneratedToken]:
    """Return the tokens of an echoed prompt; nothing is known about the first one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    result, place = list[GeneratedToken](), 0
    for i, token in enumerate(tokens):
        value, top = (None, None) if i == 0 else (values[i - 1][0], _named(llm, values[i - 1][1]))
        result.append(GeneratedToken(place, llm.detokenize([token], special=True), value, top))
        place += len(decoder.decode(llm.token_bytes(token, special=True)))
    return result


def _chunks(llm: Llama, pieces: Iterator[Piece], *, with_logprobs: bool) -> Iterator[CompletionChunk]:
    identity, created = f"cmpl-{uuid.uuid4()}", int(time.time())
    for piece in pieces:
        details: CompletionLogprobs | None = None
        if with_logprobs:
            details = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
            for token in piece.tokens:
                details["tokens"].append(token.text)
                details["text_offset"].append(token.start)
                details["token_logprobs"].append(token.logprob)
                details["top_logprobs"].append(token.top)
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
