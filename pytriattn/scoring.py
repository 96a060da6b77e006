"""How well a model predicts continuations of texts: what benchmarks with several choices rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.errors import ContextFullError
from pytriattn.log import forward_llama_log

if TYPE_CHECKING:
    from pytriattn.session import Session

__all__ = ["ContinuationScore", "ContinuationScorer"]


class ContinuationScore(NamedTuple):
    """Natural-log probabilities of a continuation's tokens, float32 [n], and whether each was the likeliest, bool [n]."""

    logprobs: npt.NDArray[np.float32]
    is_best: npt.NDArray[np.bool_]

    @property
    def logprob(self) -> float:
        """Of the whole continuation."""
        return float(self.logprobs.sum(dtype=np.float64))

    @property
    def is_greedy(self) -> bool:
        """Whether generating at temperature 0 would give this continuation."""
        return bool(self.is_best.all())


class ContinuationScorer:
    """Scores continuations with a `Llama`; bit for bit what `Llama.logprobs` gives for the whole text.

    Texts are read in steps of ``interval``, so that evictions happen where decoding would evict. A text that begins like the one
    before is read from the last common step on, unless an eviction has been there. Texts that differ in the last token alone are
    read once, eviction or not.

    Attributes:
        n_read: tokens that have been read.
        n_reused: tokens that did not have to be.
    """

    def __init__(self, llm: Session) -> None:
        """Take a loaded model; other calls of it may come in between."""
        self.n_read = 0
        self.n_reused = 0
        self._llm = llm
        self._call = -1
        self._text = np.empty(0, dtype=np.int32)  # what the cache has read

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> ContinuationScore:
        """Return how well `continuation` is predicted after `context`.

        Args:
            context: token ids, at least one.
            continuation: token ids, at least one.

        Raises:
            InvalidTokenError: one of them is empty, or has ids that are not in the vocabulary.
            ContextFullError: both together are longer than ``n_ctx``.
        """
        before, after = self._llm.check_tokens(context), self._llm.check_tokens(continuation)
        text = np.concatenate([before, after])
        if len(text) > self._llm.n_ctx():
            raise ContextFullError(
                f"{len(text)} tokens are more than n_ctx {self._llm.n_ctx()}; raise n_ctx or shorten the text"
            )
        self._llm.note_position(len(text))
        if self._call != self._llm.call_number:
            self._text = text[:0]
        native: Any = self._llm.native_context
        if len(after) == 1 and len(text) == len(self._text) and (text[:-1] == self._text[:-1]).all() and native.n_rows > 1:
            self.n_reused += len(text)
            logprob, [(best, _)] = native.row_logprobs(-2, int(after[0]), 1)
            return ContinuationScore(np.array([logprob], dtype=np.float32), np.array([best == after[0]]))
        return self._read(native, text, len(before))

    def _read(self, native: Any, text: npt.NDArray[np.int32], n_before: int) -> ContinuationScore:
        n_kept = self._keep_prefix(native, text, n_before)
        self._text = text[:0]  # if the following fails
        try:
            logprobs, is_best = native.score(text[n_kept:], n_before - n_kept)
            self._llm.report_evictions()
        finally:
            forward_llama_log()
        self._text = text
        self.n_read += len(text) - n_kept
        self.n_reused += n_kept
        return ContinuationScore(logprobs, is_best.astype(np.bool_))

    def _keep_prefix(self, native: Any, text: npt.NDArray[np.int32], n_before: int) -> int:
        """Cut the cache back to whole steps that both texts share, and return how many tokens that are."""
        n = min(len(self._text), n_before - 1)
        different = np.flatnonzero(self._text[:n] != text[:n])
        common = int(different[0]) if different.size else n
        # other steps would be other matrix products, whose rounding differs
        common -= common % int(native.score_step)
        n_kept = 0
        if common > 0:
            n_kept = native.truncate(0, common)
        if n_kept == 0:
            self._llm.reset()
            self._call = self._llm.call_number
        return n_kept
