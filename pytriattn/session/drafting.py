"""Guessing what a model says next, for its session to compute ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.options.drafting import LlamaDraftModel, LlamaModelDrafting, LlamaPromptLookupDecoding
from pytriattn.session.images import text_of

__all__ = ["Drafting", "open_drafting"]


class Drafting:
    """Follows a session's text, and guesses how it goes on."""

    def __init__(self, source: core.Drafter | LlamaDraftModel) -> None:
        """Guess by llama.cpp's own means, or by a rule in Python."""
        self._source = source
        self._seen: list[int] = []  # the session's own list
        self._n_seen = 0

    def propose(self, tokens: list[int], last: int, n_max: int) -> npt.NDArray[np.int32]:
        """Return tokens that may come next, int32 [n], at most `n_max`.

        Args:
            tokens: what the session has read. It may be appended to between two calls; a text that differs otherwise
                has to be another list.
            last: the token after these, which is read next.
            n_max: the most tokens that are of use.
        """
        if not isinstance(self._source, core.Drafter):
            text = np.array([*text_of(tokens), last], dtype=np.int32)
            return np.asarray(self._source(text), dtype=np.int32)[:n_max]
        if tokens is self._seen and len(tokens) >= self._n_seen:
            self._source.append(np.array(text_of(tokens[self._n_seen :]), dtype=np.int32))
        else:
            self._source.set_text(np.array(text_of(tokens), dtype=np.int32))
        self._seen, self._n_seen = tokens, len(tokens)
        return np.array(self._source.draft(last, n_max), dtype=np.int32)

    def step_and_sample(
        self, context: core.Context, tokens: list[int], token: int, sampler: core.Sampler, n_more: int | None
    ) -> int:
        """Read a token, with guesses of those behind it, and draw the next one.

        Args:
            context: that of the session.
            tokens: what the session has read; see `propose`.
            token: the token to read.
            sampler: draws the next one.
            n_more: how many tokens will be drawn after that, at most; None: any number.
        """
        n_max = context.max_drafts(token)
        n_max = n_max if n_more is None else min(n_max, n_more)
        if n_max == 0:
            return context.step_and_sample(token, sampler)
        return context.step_and_sample(token, sampler, self.propose(tokens, token, n_max))

    def cancel(self) -> None:
        """End what another thread is computing here."""
        if isinstance(self._source, core.Drafter):
            self._source.cancel()

    def start(self) -> None:
        """Take back `cancel`."""
        if isinstance(self._source, core.Drafter):
            self._source.start()


def open_drafting(
    rule: LlamaModelDrafting | LlamaDraftModel | None,
    context: core.Context,
    n_threads: int,
    load: Callable[[Path, int], core.Model],
) -> Drafting | None:
    """Return what a rule drafts with; None without one.

    Args:
        rule: how tokens are drafted.
        context: of the model that they are drafted for.
        n_threads: CPU threads.
        load: loads a model file, with so many layers on the GPU.

    Raises:
        UnsupportedModelError: the draft model has another vocabulary, or recurrent states.
        ContextError: its context cannot be made.
    """
    if isinstance(rule, LlamaModelDrafting):
        model = load(Path(rule.model_path).expanduser(), rule.n_gpu_layers)
        return Drafting(
            core.Drafter(model, context, n_ctx=rule.n_ctx, n_threads=n_threads, n_draft=rule.num_pred_tokens)
        )
    if isinstance(rule, LlamaPromptLookupDecoding):
        return Drafting(rule.to_native())
    return None if rule is None else Drafting(rule)
