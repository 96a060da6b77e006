"""How well a model predicts continuations of texts. Benchmarks with several choices use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.session.session import Session

__all__ = ["ContinuationScore", "ContinuationScorer"]


class ContinuationScore(NamedTuple):
    """How well a continuation was predicted.

    Attributes:
        logprobs: natural-log probabilities of its tokens, float32 [n_tokens].
        is_best: whether no other token was likelier, bool [n_tokens].
    """

    logprobs: npt.NDArray[np.float32]
    is_best: npt.NDArray[np.bool_]

    @property
    def logprob(self) -> float:
        """The log-probability of the whole continuation."""
        return float(self.logprobs.sum(dtype=np.float64))

    @property
    def is_greedy(self) -> bool:
        """Whether generating at temperature 0 would give this continuation."""
        return bool(self.is_best.all())


class ContinuationScorer:
    """Scores continuations with a `Llama`; the scores are, bit for bit, those of `Llama.logprobs` for the whole text.

    Texts are read in steps of ``interval``, so that evictions happen where decoding would evict. A text that begins
    like the one before is read from the last common step on, unless an eviction has taken place since. Texts that
    differ in the last token alone are read once, with evictions too.

    Attributes:
        n_read: tokens that have been read.
        n_reused: tokens that did not have to be read again.
    """

    def __init__(self, llm: Session) -> None:
        """Take a loaded model; other calls of it may come in between."""
        self.n_read = 0
        self.n_reused = 0
        self._llm = llm

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
        found = self._llm.score(text, len(before))
        self.n_read += len(text) - found.n_reused
        self.n_reused += found.n_reused
        return ContinuationScore(found.logprobs, found.is_best)
