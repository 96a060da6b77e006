"""The loop that draws a token, hands it out and reads it."""

from __future__ import annotations

import operator
from collections.abc import Iterator

from pytriattn._native import core
from pytriattn.errors import BusyError
from pytriattn.session.session import Session

__all__ = ["Generation", "token_limit"]


class Generation(Iterator[int]):
    """An iterator of generated token ids, after a prompt that has been read.

    A token is read into the cache when the next one is asked for, so the last one never costs a step.

    Attributes:
        n_generated: tokens handed out so far.
        finish_reason: None while it goes on, then ``stop`` (the model ended the text) or ``length`` (`max_tokens` or
            ``n_ctx``), or ``error`` (an exception of `Llama.on_evict` ended it).
    """

    def __init__(self, llm: Session, sampler: core.Sampler, limit: int | None, *, ignore_eos: bool) -> None:
        """Continue `llm`, which has just read a prompt that `sampler` knows; `limit` None: until ``n_ctx``."""
        self.n_generated = 0
        self.finish_reason: str | None = None
        self._llm = llm
        self._call = llm.call_number
        self._limit = limit
        self._ignore_eos = ignore_eos
        self._sampler = sampler
        self._last: int | None = None

    def __iter__(self) -> Generation:
        """Return the object itself."""
        return self

    def __next__(self) -> int:
        """Return the next token."""
        if self.finish_reason is not None:
            raise StopIteration
        if self._call != self._llm.call_number:
            raise BusyError("another call has changed what this Llama has read; finish one generation before the next")
        is_full = self._last is not None and self._llm.n_tokens >= self._llm.n_ctx()
        if self.n_generated == self._limit or is_full:
            return self._finish("length")
        try:
            n_more = None if self._limit is None else self._limit - self.n_generated - 1
            token = self._llm.draw(self._sampler, after=self._last, n_more=n_more)
        except BusyError:
            raise  # nothing has changed: the next call can go on
        except BaseException:
            if self._call == self._llm.call_number:  # the text is still there, but a token was drawn and not returned
                self.finish_reason = "error"
            raise
        if not self._ignore_eos and self._llm.is_end(token):
            return self._finish("stop")
        self._last = token
        self.n_generated += 1
        return token

    def _finish(self, reason: str) -> int:
        self.finish_reason = reason
        raise StopIteration


def token_limit(max_tokens: int | None) -> int | None:
    """Return the largest number of tokens to generate, None if there is no limit.

    Raises:
        TypeError: it is no whole number.
    """
    if max_tokens is None:
        return None
    limit = operator.index(max_tokens)
    return limit if limit >= 0 else None
