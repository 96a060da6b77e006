"""A model with a context, and the text that its cache holds: reading, drawing, going back."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._native.log import forward_llama_log
from pytriattn.errors import (
    BusyError,
    ClosedError,
    ContextError,
    ContextFullError,
    ContextWarning,
    ServerLostError,
)
from pytriattn.eviction.counters import PromptCounters
from pytriattn.eviction.records import Eviction, EvictionReporter
from pytriattn.session.images import PartedPrompt
from pytriattn.session.loaded_model import LoadedModel
from pytriattn.session.opening import OpenedModel

__all__ = ["CachedText", "n_common"]


class CachedText(LoadedModel):
    """A loaded model with a context. One thread at a time; a second one gets `BusyError`.

    It alone steps its context, and it alone knows what the context has read.
    """

    def __init__(self, opened: OpenedModel, *, protect_prompt: bool = False, reuse_evicted: bool = True) -> None:
        """Take a model that `open_model` has opened; see `Llama` for the settings."""
        super().__init__(opened.model, opened.identity, opened.path, opened.n_threads, opened.options.rope)
        self._context: core.Context | None = opened.context
        self._drafting = opened.drafting
        self._stats = opened.stats
        self._n_ctx = opened.options.n_ctx
        self._n_ctx_train = opened.model.n_ctx_train
        self._eviction = opened.options.eviction
        n_cells = opened.context.counters().cells_allocated
        self._made_with = opened.options.describe_state(opened.identity.sha256, n_cells)
        if self._eviction is not None and self._eviction.needs_scores and self._stats is not None:
            self._made_with["statistics"] = [self._stats.corpus_sha256, self._stats.n_tokens]
        self._protect_prompt = protect_prompt
        self._reuse_evicted = reuse_evicted
        self._idle = opened.idle
        self._has_warned = False
        self._call = 0
        self._tokens: list[int] = []  # what the cache has read
        self._n_in_steps = 0  # of these, from the start, in the steps of `score`
        self._n_protected = 0  # of these, from the start, never evicted
        self._question: tuple[int, int] | None = None  # positions whose queries choose what is kept
        self._prompts = PromptCounters()
        self._reporter: EvictionReporter | None = None

    def check_prompt(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """Return a prompt's tokens, int32 [n_tokens], if it fits the context and the budget.

        Raises:
            InvalidTokenError, ContextFullError, BudgetError: it does not.
        """
        array = self.check_tokens(tokens)
        self._check_fits(len(array), protected=self._protect_prompt)
        return array

    def _check_fits(self, n_tokens: int, *, protected: bool) -> None:
        if n_tokens > self._n_ctx:
            raise ContextFullError(
                f"{n_tokens} tokens are more than n_ctx {self._n_ctx}; raise n_ctx or shorten the text"
            )
        self.warn_beyond_training(n_tokens)
        if self._eviction is not None and protected:
            self._eviction.check_prompt(n_tokens)

    def read_prompt(
        self,
        tokens: npt.NDArray[np.int32],
        n_top_logprobs: int | None = None,
        question: tuple[int, int] | None = None,
        parted: PartedPrompt | None = None,
    ) -> list[tuple[float, list[tuple[int, float]]]]:
        """Read a prompt that `check_tokens` gave, or one with images (`parted`, whose tokens these are); return
        (log-probability, best tokens) of tokens[1:] if `n_top_logprobs` is given.

        Its tokens `question` (begin and end) choose what is kept of the rest, if the prompt is evicted from while it is
        read and the mode takes questions; see `Llama.__call__`.

        What it has in common with the text in the cache is not read again, unless an eviction has touched that (see
        ``reuse_evicted`` of `Llama`), or log-probabilities of all tokens are wanted; `kv_stats` tells.
        """
        context = self._open_context()
        self._check_fits(len(tokens) if parted is None else parted.n_tokens, protected=self._protect_prompt)
        if parted is not None:
            parted.check(context)
        n_protected = len(tokens) if self._protect_prompt else 0
        self.forget_cancellation()
        n_kept = self._keep_prefix(tokens, parted, wanted=n_top_logprobs is None)
        self._call += 1
        self._ask(0, tokens, question, len(tokens) if parted is None else parted.n_tokens)
        with self._forgetting_on_failure():
            self._follow_idle(context)
            if parted is not None:
                parted.read(context, n_kept, n_protected)
                found: list[tuple[float, list[tuple[int, float]]]] = []
            elif n_top_logprobs is None:
                context.read(0, tokens[n_kept:], n_protected)
                found = []
            else:
                rows = context.read_with_logprobs(0, tokens, n_protected, n_top_logprobs)
                found = [_as_pairs(row) for row in rows]
            self._tokens, self._n_protected = tokens.tolist(), n_protected
        self._report_evictions()
        return found

    @contextlib.contextmanager
    def _forgetting_on_failure(self) -> Iterator[None]:
        """Keep the books while the context computes: what is refused changes nothing, what fails has cleared it."""
        try:
            yield
        except BusyError:
            raise  # another thread's computation goes on
        except BaseException:
            self._settle()
            raise
        finally:
            forward_llama_log()

    def _settle(self) -> None:
        """Forget what has been read if books and cache differ: a signal may raise its exception at any moment, also
        between a step of the context and the line that notes it.

        Every call begins with it that goes on from what has been read; a prompt cuts the cache back itself.
        """
        n_read = 0
        with contextlib.suppress(ServerLostError):  # which has lost the cache too
            n_read = self._open_context().n_tokens()
        if n_read != len(self._tokens):
            self.abandon()

    def _keep_prefix(self, tokens: npt.NDArray[np.int32], parted: PartedPrompt | None, *, wanted: bool) -> int:
        """Cut the cache back to what it has in common with `tokens`; return how many that are."""
        context = self._open_context()
        # the last token is always read, for its logits
        common = min(n_common(np.asarray(self._tokens, dtype=np.int32), tokens), len(tokens) - 1)
        common = common if parted is None else parted.whole_parts(common)
        was_evicted = context.has_evicted(0)
        # what is evicted from a protected prompt would be missing in a longer one
        keep_evicted = self._reuse_evicted and not self._protect_prompt
        # refused if another thread is at work; then nothing has changed
        n_kept = self._cut_back(common if wanted else 0, keep_evicted=keep_evicted)
        was_lost = wanted and was_evicted and common > 0 and n_kept == 0
        self._prompts.record(n_tokens=len(tokens), n_reused=n_kept, was_lost=was_lost)
        return n_kept

    def _ask(self, seq: int, tokens: npt.NDArray[np.int32], question: tuple[int, int] | None, n_keys: int) -> None:
        """Take the question of a prompt of so many keys, if there will be an eviction that it can choose for."""
        context, eviction = self._open_context(), self._eviction
        if eviction is None or not context.takes_questions:
            return
        if question is not None and n_keys < eviction.budget + eviction.interval:
            question = None
        begin, end = question or (0, 0)
        context.set_question(seq, tokens[begin:end], begin)
        self._question = question if seq == 0 else None

    def set_question(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]], position: int | None = None) -> None:
        """Let a question choose what is kept, at every eviction from now on; for programs that read a text by `eval`.

        Nothing happens in modes other than ``fitted``. `reset` ends it, and so does the next prompt.

        Args:
            tokens: ids of the question, [n_tokens], at most 128; empty: none from now on.
            position: where it will stand in the text; None: right behind what has been read.

        Raises:
            InvalidTokenError: there are too many of them, or ids that are not in the vocabulary.
            BudgetError: there are more of them than the budget.
        """
        self._settle()
        array = self.check_tokens(tokens) if len(tokens) else np.zeros(0, dtype=np.int32)
        at = len(self._tokens) if position is None else position
        self._open_context().set_question(0, array, at)
        self._question = (at, at + len(array)) if len(array) and self.takes_questions else None

    @property
    def takes_questions(self) -> bool:
        """Whether a question chooses what is kept: in mode ``fitted``."""
        return self._open_context().takes_questions

    def _cut_back(self, n: int, *, keep_evicted: bool) -> int:
        """Cut cache and books back to the first `n` tokens; return how many are left: `n` or none."""
        n_kept = self._open_context().truncate(0, n, keep_evicted)
        self._tokens = self._tokens[:n_kept]
        self._n_in_steps = min(self._n_in_steps, n_kept)
        return n_kept

    def eval(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> None:
        """Read tokens after those that have been read, and evict if the budget asks for it; ``generate(None)`` goes on
        from there.

        A prompt that has been protected stays so. With `logits` a program can draw tokens itself:

            llm.eval(llm.tokenize("Once upon a time"))
            for _ in range(100):
                llm.eval([int(llm.logits.argmax())])

        Args:
            tokens: ids, at least one.

        Raises:
            InvalidTokenError, ContextFullError: as `Llama.__call__`; nothing has been read then.
        """
        array = self.check_tokens(tokens)
        context = self._open_context()
        self._settle()
        self.warn_beyond_training(len(self._tokens) + len(array))
        self.forget_cancellation()
        with self._forgetting_on_failure():
            self._follow_idle(context)
            context.read(0, array, self._n_protected)
            self._call += 1
            self._tokens += array.tolist()
        self._report_evictions()

    @property
    def n_until_eviction(self) -> int | None:
        """How many tokens decoding can read until it evicts; None: there is no budget.

        `eval` evicts exactly where decoding would if no call goes beyond this; longer calls evict once, after them.
        """
        return self._open_context().n_until_eviction

    def truncate(self, n: int) -> int:
        """Forget what has been read after the first `n` tokens; return how many are left: `n` or none.

        None are left if an eviction has taken place later, a sliding window or a recurrent state has moved on, or the
        prompt is protected. Then only a saved state leads back.
        """
        self._settle()
        n = min(n, len(self._tokens))
        if n == len(self._tokens):
            return n
        n_kept = self._cut_back(n, keep_evicted=True) if n > 0 and self._n_protected == 0 else 0
        if n_kept == 0:
            self.reset()
        self._call += 1
        return n_kept

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the token that follows what has been read: float32 [n_vocab], read-only.

        The array keeps its values whatever comes later, `close` included. While `generate` goes on, the last token was
        drawn from these logits.

        Raises:
            ContextError: nothing has been read, or nothing since a state was loaded.
        """
        context = self._open_context()
        self._settle()
        if not self._tokens or context.n_rows == 0:
            raise ContextError("there are no logits, since nothing has been read; eval a token first")
        return context.logits(-1)

    @property
    def tokens(self) -> list[int]:
        """What has been read, token by token; negative numbers stand for images."""
        if self._context is not None:
            with contextlib.suppress(BusyError):  # another thread is reading more
                self._settle()
        return list(self._tokens)

    def draw(self, sampler: core.Sampler, *, after: int | None = None, n_more: int | None = None) -> int:
        """Return the next token.

        Args:
            sampler: draws it.
            after: the token that was drawn before; it is read first.
            n_more: how many tokens will be drawn after this one, at most; more are not drafted. None: any number.

        Raises:
            BusyError: another thread is computing with this object; nothing has changed.
            ContextError: an exception came between two tokens; what had been read is forgotten.
            GrammarError: the grammar, `logit_bias` and the processors leave no token to draw (ValueError without a
                grammar); what had been read is forgotten.
            DecodeError, RequestCancelledError, ServerLostError: it failed; what had been read is forgotten.
        """
        context = self._open_context()
        if context.n_tokens() != len(self._tokens):
            self._settle()
            raise ContextError(
                "there are no logits to draw from: an exception came between two tokens, and what had been read is "
                "forgotten; begin anew"
            )
        if after is not None:
            self.warn_beyond_training(len(self._tokens) + 1)
        try:
            self._follow_idle(context)
            if after is None:
                token = context.sample(sampler)
            elif self._drafting is None:
                token = context.step_and_sample(after, sampler)
            else:
                token = self._drafting.step_and_sample(context, self._tokens, after, sampler, n_more)
        except BusyError:
            raise  # nothing has been touched
        except BaseException:
            # the context has been cleared, or the sampler has taken a token that the caller did not get
            self.abandon()
            raise
        if after is not None:
            self._tokens.append(after)
            self._report_evictions()
        return token

    def start_sequence(
        self,
        seq: int,
        tokens: npt.NDArray[np.int32],
        sampler: core.Sampler,
        question: tuple[int, int] | None = None,
    ) -> int:
        """Read a prompt into a sequence of its own, and return the first token drawn after it; for `draw_each`.

        What the sequence held before is forgotten. The text of `tokens` is that of sequence 0 alone, and is lost.

        Args:
            seq: the index of the sequence.
            tokens: ids of the prompt, int32 [n_tokens].
            sampler: draws the token.
            question: begin and end of the question in the prompt.
        """
        context = self._open_context()
        self._tokens, self._n_in_steps, self._n_protected = [], 0, 0
        context.clear(seq)
        self._ask(seq, tokens, question, len(tokens))
        context.read(seq, tokens, len(tokens) if self._protect_prompt else 0)
        self._report_evictions()
        return context.sample(sampler)

    def draw_each(self, seqs: Sequence[int], after: Sequence[int], samplers: Sequence[core.Sampler]) -> list[int]:
        """Read one token in each of several sequences, and return the next one of each.

        Args:
            seqs: which sequences.
            after: the token that was drawn before in each.
            samplers: that of each.
        """
        context = self._open_context()
        self._follow_idle(context)
        drawn = context.step_and_sample_each(list(seqs), list(after), list(samplers))
        self._report_evictions()
        return drawn

    def next_logprobs(self, token: int, n_top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-probability of `token` as the next one, and the `n_top` likeliest tokens with theirs."""
        return _as_pairs(self._open_context().row_logprobs(-1, token, n_top))

    def warn_beyond_training(self, n_tokens: int) -> None:
        """Warn, the first time, of a text of `n_tokens` that goes beyond what the model was trained for."""
        if 0 < self._n_ctx_train < n_tokens and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the text goes beyond the {self._n_ctx_train} positions that this model was trained for; what it "
                "predicts there may be poor. Stretch its context by rope_freq_scale or YaRN, or keep texts shorter",
                ContextWarning,
                stacklevel=2,
            )

    def reset(self) -> None:
        """Forget what has been read."""
        context = self._open_context()
        for seq in range(context.n_seq_max):
            context.clear(seq)  # refused if another thread is at work; then nothing has changed
        self.forget_cancellation()
        self._call += 1
        self._tokens, self._n_in_steps, self._n_protected = [], 0, 0
        self._question = None

    def on_evict(self, callback: Callable[[Eviction], object] | None) -> None:
        """Call `callback` with each `Eviction`, after the step in which it happened; None: call nothing any more.

        An exception that the callback raises ends the call of `Llama` in which it was called.
        """
        context = self._open_context()
        context.take_evictions()
        context.record_evictions(False)
        self._reporter = EvictionReporter(callback, context) if callback is not None else None

    def _report_evictions(self) -> None:
        """Call back with what has been evicted since the last time."""
        if self._reporter is not None:
            self._reporter.report(self._open_context())

    def cancel(self) -> None:
        """End the call that another thread has made, at once: that call raises `RequestCancelledError`. If there is no
        call, nothing happens.
        """
        self._open_context().cancel()
        if self._drafting is not None:
            self._drafting.cancel()

    def forget_cancellation(self) -> None:
        """Begin a call: a `cancel` that came while nothing was under way does not end it."""
        self._open_context().start()
        if self._drafting is not None:
            self._drafting.start()

    def abandon(self) -> None:
        """Forget what has been read, after a call that was interrupted or has failed halfway."""
        self._call += 1
        self._tokens, self._n_in_steps, self._n_protected, self._question = [], 0, 0, None
        if self._context is not None and not self._context.closed:
            with contextlib.suppress(ServerLostError):  # then nothing is left to forget
                self._context.clear()

    @property
    def n_tokens(self) -> int:
        """Tokens read so far."""
        self._settle()
        return self._open_context().n_tokens()

    @property
    def n_sequences(self) -> int:
        """Sequences that the context can decode at once."""
        return self._open_context().n_seq_max

    @property
    def has_logits(self) -> bool:
        """Whether a token can be drawn: something has been read, and not before a state was loaded."""
        return self._open_context().n_rows > 0

    @property
    def call_number(self) -> int:
        """Counts the texts that have been read, so that an iterator can tell whether its own is still there."""
        return self._call

    def n_ctx(self) -> int:
        """Return the largest number of positions."""
        return self._n_ctx

    def _follow_idle(self, context: core.Context) -> None:
        """Compute with as many threads as CPUs have nothing else to do, if the user has asked for that."""
        if self._idle is not None and (n := self._idle.look()) != self._n_threads:
            context.set_threads(n)
            self._n_threads = n

    def _open_context(self) -> core.Context:
        if self._context is None:
            raise ClosedError("this Llama has been closed")
        return self._context


def _as_pairs(found: core.TokenLogprobs) -> tuple[float, list[tuple[int, float]]]:
    return found.logprob, [(best.token, best.logprob) for best in found.top]


def n_common(read: npt.NDArray[np.int32], tokens: npt.NDArray[np.int32]) -> int:
    """Return how many tokens both texts begin with."""
    n = min(len(read), len(tokens))
    different = np.flatnonzero(read[:n] != tokens[:n])
    return int(different[0]) if different.size else n
