"""How well a text's tokens are predicted, read as decoding would read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.session.cached_text import CachedText, n_common

__all__ = ["ScoredText", "ScoredTokens"]


class ScoredTokens(NamedTuple):
    """How well tokens were predicted.

    Attributes:
        logprobs: natural-log probabilities, float32 [n].
        is_best: whether no other token was likelier, bool [n].
        n_reused: tokens of the text that did not have to be read.
    """

    logprobs: npt.NDArray[np.float32]
    is_best: npt.NDArray[np.bool_]
    n_reused: int


class ScoredText(CachedText):
    """A cached text whose tokens can be scored."""

    def read_logits(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Read tokens after those that have been read, evicting exactly where decoding would; return the logits after
        each.

        Args:
            tokens: n ids, at least one.

        Returns:
            float32 [n, n_vocab].

        Raises:
            InvalidTokenError, ContextFullError: as `score_next`.
        """
        array = self.check_tokens(tokens)
        context = self._open_context()
        found: list[npt.NDArray[np.float32]] = []
        while array.size:
            n = min(len(array), context.score_step, self.n_until_eviction or len(array))
            self.score_next(array[:n], n)
            found += [context.logits(row) for row in range(n)]
            array = array[n:]
        return np.stack(found)

    def score_next(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]], first: int = 1) -> ScoredTokens:
        """Read tokens after those that have been read, and return how well tokens[first:] are predicted.

        Evictions come exactly where decoding would evict. The cache may have been evicted from, or loaded.

        Args:
            tokens: ids, at least one. The first one is read and not scored: what predicts it is not kept by a saved
                state.
            first: index of the first token to score, at least 1.

        Returns:
            ``logprobs`` (ln p, float32 [n - first]) and ``is_best`` (no other token was likelier, bool [n - first]).

        Raises:
            InvalidTokenError: `tokens` is empty or has ids that are not in the vocabulary, or `first` is outside it.
            ContextFullError: the text would have more tokens than ``n_ctx``; nothing has been read then.
        """
        array = self.check_tokens(tokens)
        context = self._open_context()
        self._settle()
        self._check_fits(len(self._tokens) + len(array), protected=False)
        self.forget_cancellation()
        with self._forgetting_on_failure():
            scores = context.score(array, first)
            self._call += 1
            self._n_in_steps = 0
            self._tokens += array.tolist()
        self._report_evictions()
        return ScoredTokens(scores.logprobs, scores.is_best, 0)

    def logprobs(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Return the natural-log probability of each token after the first, given those before it.

        The cache is cleared and the text is read in steps of ``interval``, evicting exactly where decoding would. The
        perplexity of the text is exp(-mean).

        Args:
            tokens: n ids, at least one.

        Returns:
            float32 [n - 1].

        Raises:
            InvalidTokenError, ContextFullError: as `__call__`.
        """
        array = self.check_tokens(tokens)
        self._check_fits(len(array), protected=False)
        self.reset()
        return self.score(array, 1).logprobs

    def score(self, tokens: npt.NDArray[np.int32], first: int) -> ScoredTokens:
        """Return how well tokens[first:] are predicted; bit for bit what `logprobs` gives for the whole text.

        A text that begins like the one before is read from the last common step of ``interval`` on, if both were read
        by this method and no eviction has been there. Texts that differ in the last token alone are read once, eviction
        or not.

        Args:
            tokens: a text that `check_tokens` gave.
            first: index of the first token to score, at least 1.

        Raises:
            ContextFullError: the text is longer than ``n_ctx``.
        """
        context = self._open_context()
        self._settle()
        self._check_fits(len(tokens), protected=False)
        read = np.asarray(self._tokens[: self._n_in_steps], dtype=np.int32)
        common = n_common(read[: first - 1], tokens)
        if first == len(tokens) - 1 == len(read) - 1 and context.n_rows > 1 and n_common(read[:-1], tokens) == first:
            row = context.row_logprobs(-2, int(tokens[-1]), 1)
            return ScoredTokens(
                np.array([row.logprob], dtype=np.float32), np.array([row.top[0].token == tokens[-1]]), len(tokens)
            )
        self.forget_cancellation()
        # other steps would be other matrix products, whose rounding differs
        common -= common % context.score_step
        n_kept = self._cut_back(common, keep_evicted=False) if common > 0 else 0
        if n_kept == 0:
            self.reset()
        else:
            self._call += 1
        with self._forgetting_on_failure():
            scores = context.score(tokens[n_kept:], first - n_kept)
            self._tokens, self._n_in_steps, self._n_protected = tokens.tolist(), len(tokens), 0
        self._report_evictions()
        return ScoredTokens(scores.logprobs, scores.is_best, n_kept)
