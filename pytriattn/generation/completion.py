"""Text completions in OpenAI's form, whole or as a stream."""

from __future__ import annotations

import codecs
import itertools
import operator
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pytriattn.errors import InvalidTokenError
from pytriattn.generation.question import find_question
from pytriattn.generation.sampling import SamplingParams
from pytriattn.generation.text_stream import (
    GeneratedToken,
    Piece,
    TokenValue,
    check_stops,
    generated_pieces,
    token_values,
)
from pytriattn.generation.token_stream import Generation, token_limit
from pytriattn.session.session import Session

__all__ = ["Completion", "CompletionChunk", "CompletionUsage", "complete"]


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


def complete(
    llm: Session,
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None,
    params: SamplingParams,
    stop: str | Sequence[str] | None,
    stream: bool,
    echo: bool,
    logprobs: int | None,
    question: int | str | None,
) -> Completion | Iterator[CompletionChunk]:
    """Complete a prompt; see `Llama.__call__`. The prompt has been read when this returns.

    Raises:
        InvalidTokenError: the prompt is empty.
        ValueError: a setting has no meaning.
    """
    stops = check_stops(stop)
    if logprobs is not None and operator.index(logprobs) < 0:
        raise ValueError(f"logprobs is {logprobs}, it must not be negative")
    text = prompt if isinstance(prompt, str) else None
    if text is not None:
        if not text:
            raise InvalidTokenError("the prompt is empty; give at least one character")
        prompt = llm.tokenize_prompt(text)
    tokens = llm.check_tokens(prompt)  # type: ignore[arg-type]
    sampler = params.make_sampler(llm, tokens)
    limit = token_limit(max_tokens)
    asked = find_question(llm, tokens, question)
    prompt_logprobs = llm.read_prompt(tokens, logprobs if echo else None, asked)
    generation = Generation(llm, sampler, limit, ignore_eos=params.ignore_eos)

    shown = "" if not echo else text if text is not None else llm.detokenize(tokens, special=True)
    pieces = generated_pieces(llm, generation, stops, logprobs, len(shown))
    if echo:
        details = [] if logprobs is None else _prompt_tokens(llm, tokens, shown, prompt_logprobs)
        pieces = itertools.chain([Piece(shown, details, None)], pieces)
    chunks = _chunks(llm, pieces, with_logprobs=logprobs is not None)
    return chunks if stream else _join(chunks, len(tokens), generation)


def _prompt_tokens(
    llm: Session, tokens: npt.NDArray[np.int32], shown: str, values: list[tuple[float, list[tuple[int, float]]]]
) -> list[GeneratedToken]:
    """Return the tokens of an echoed prompt, placed in the text that is `shown`. The first has no probability."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    # what the model adds in front of a text, a token or a space, is not shown
    place = len(shown) - len(llm.detokenize(tokens, special=True))
    result: list[GeneratedToken] = []
    for i, token in enumerate(tokens):
        text, data = llm.detokenize([token], special=True), llm.token_bytes(token, special=True)
        value = None if i == 0 else TokenValue(text, data, values[i - 1][0])
        result.append(GeneratedToken(max(0, place), text, value, [] if i == 0 else token_values(llm, values[i - 1][1])))
        place += len(decoder.decode(data))
    return result


def _chunks(llm: Session, pieces: Iterator[Piece], *, with_logprobs: bool) -> Iterator[CompletionChunk]:
    identity, created = f"cmpl-{uuid.uuid4()}", int(time.time())
    for piece in pieces:
        details: CompletionLogprobs | None = None
        if with_logprobs:
            details = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
            for token in piece.tokens:
                details["tokens"].append(token.text)
                details["text_offset"].append(token.start)
                details["token_logprobs"].append(None if token.value is None else token.value.logprob)
                details["top_logprobs"].append(None if token.value is None else _by_text(token.top))
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


def _by_text(found: list[TokenValue]) -> dict[str, float]:
    """Return log-probabilities by text; of several parts of characters, which all read U+FFFD, the best one counts."""
    result: dict[str, float] = {}
    for token in found:
        result.setdefault(token.text, token.logprob)
    return result


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
