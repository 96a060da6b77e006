"""Text of generated tokens: whole characters only, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pytriattn.generation.token_stream import Generation
from pytriattn.session.session import Session

__all__ = ["GeneratedToken", "Piece", "TextStream", "check_stops", "generated_pieces", "TokenValue", "token_values"]


class TokenValue(NamedTuple):
    """A token that could stand at a place: its text, bytes (perhaps a part of a character) and log-probability."""

    text: str
    data: bytes
    logprob: float


class GeneratedToken(NamedTuple):
    """A token of the output: where its text starts, what it is, and the best ones at its place.

    ``value`` is None for the first token of a prompt, of which nothing is known but its text.
    """

    start: int
    text: str
    value: TokenValue | None
    top: list[TokenValue]


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


def token_values(llm: Session, found: Iterable[tuple[int, float]]) -> list[TokenValue]:
    """Return (token, log-probability) pairs with the tokens' texts and bytes, in the same order."""
    return [
        TokenValue(llm.detokenize([token], special=True), llm.token_bytes(token, special=True), value)
        for token, value in found
    ]


class TextStream:
    """Takes tokens and gives text; holds back incomplete characters and whatever may become a stop string.

    Attributes:
        has_stopped: a stop string has been found; nothing more may be pushed.
    """

    def __init__(self, llm: Session, stops: list[str], start: int = 0, shown: frozenset[int] = frozenset()) -> None:
        """Begin after `start` characters of text; control tokens in `shown` are written as text."""
        self.has_stopped = False
        self._llm = llm
        self._stops = stops
        self._longest = max(map(len, stops), default=1) - 1
        self._start = start
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._tokens: list[GeneratedToken] = []

    def push(self, token: int, n_top_logprobs: int | None = None) -> Piece | None:
        """Take a token, with its log-probability and so many best ones if wanted; return what is certain by now."""
        place = self._start + len(self._held)
        self._held += self._decoder.decode(self._llm.token_bytes(token, token in self._shown))
        if n_top_logprobs is not None:
            value, top = self._llm.next_logprobs(token, n_top_logprobs)
            text, data = self._llm.detokenize([token]), self._llm.token_bytes(token)
            best = token_values(self._llm, top)
            self._tokens.append(GeneratedToken(place, text, TokenValue(text, data, value), best))
        found = [at for at in (self._held.find(text) for text in self._stops) if at >= 0]
        if found:
            self.has_stopped = True
            end = self._start + min(found)
            return Piece(self._held[: min(found)], [t for t in self._tokens if t.start < end], "stop")
        safe = len(self._held) - self._possible_stop()
        if safe == 0:
            return None
        self._start += safe
        piece = Piece(self._held[:safe], [t for t in self._tokens if t.start < self._start], None)
        self._held = self._held[safe:]
        self._tokens = [t for t in self._tokens if t.start >= self._start]
        return piece

    def finish(self, reason: str | None) -> Piece:
        """Return what is left when there are no more tokens."""
        return Piece(self._held + self._decoder.decode(b"", final=True), self._tokens, reason)

    def _possible_stop(self) -> int:
        """Return how many characters at the end could be the beginning of a stop string."""
        for length in range(min(self._longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


def generated_pieces(
    llm: Session,
    generation: Generation,
    stops: list[str],
    logprobs: int | None,
    start: int,
    shown: frozenset[int] = frozenset(),
) -> Iterator[Piece]:
    """Return the text of a generation piece by piece.

    Args:
        llm: the session that generates.
        generation: the tokens that it generates.
        stops: end before any of these.
        logprobs: the number of best tokens for each; None: no log-probabilities.
        start: the length of the text before, in characters.
        shown: control tokens that are to be written as text.
    """
    stream = TextStream(llm, stops, start, shown)
    for token in generation:
        piece = stream.push(token, logprobs)
        if piece is not None:
            yield piece
        if stream.has_stopped:
            return
    yield stream.finish(generation.finish_reason)
