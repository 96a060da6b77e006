"""The loop that draws a token, hands it out and reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pytriattn.errors import BusyError

if TYPE_CHECKING:
    from pytriattn.llama import Llama
    from pytriattn.sampling import SamplingParams

__all__ = ["Generation"]


class Generation(Iterator[int]):
    """An iterator of generated token ids, after a prompt that has been read.

    A token is read into the cache when the next one is asked for, so the last one never costs a step.

    Attributes:
        n_generated: tokens handed out so far.
        finish_reason: None while it goes on, then ``stop`` (the model ended the text) or ``length`` (`max_tokens` or ``n_ctx``).
    """

    def __init__(
        self, llm: Llama, prompt: npt.NDArray[np.int32], max_tokens: int | None, params: SamplingParams
    ) -> None:
        """Continue `llm`, which has just read `prompt`."""
        self.n_generated = 0
        self.finish_reason: str | None = None
        self._llm = llm
        self._call = llm.call_number
        self._limit = max_tokens if max_tokens is not None and max_tokens >= 0 else None
        self._ignore_eos = params.ignore_eos
        self._sampler = params.make_sampler(llm.native_model, prompt)
        self._last: int | None = None

    def __iter__(self) -> Generation:
        """Return the object itself."""
        return self

    def __next__(self) -> int:
        """Return the next token."""
        if self.finish_reason is not None:
            raise StopIteration
        context: Any = self._llm.native_context
        if self._call != self._llm.call_number:
            raise BusyError("a later call has read another text into this Llama; finish one generation before the next")
        if self.n_generated == self._limit:
            return self._finish("length")
        if self._last is None:
            token: int = context.sample(self._sampler)
        elif context.n_tokens() >= self._llm.n_ctx():
            return self._finish("length")
        else:
            token = context.step_and_sample(self._last, self._sampler)
        if not self._ignore_eos and self._llm.native_model.is_end(token):
            return self._finish("stop")
        self._last = token
        self.n_generated += 1
        return token

    def _finish(self, reason: str) -> int:
        self.finish_reason = reason
        raise StopIteration
