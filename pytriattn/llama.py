"""The `Llama` class: a GGUF model that reads and generates text, within a KV-cache budget if one is set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.architectures import check_architecture
from pytriattn.calibration import bundled_stats
from pytriattn.completion import Completion, CompletionChunk, complete
from pytriattn.errors import ClosedError, ContextFullError, ContextWarning, InvalidTokenError
from pytriattn.generation import Generation, token_limit
from pytriattn.kv_stats import KVStats, kv_stats_of
from pytriattn.log import enable_verbose, forward_llama_log
from pytriattn.model_file import ModelIdentity, check_model_file, model_identity
from pytriattn.rope import RopeSettings
from pytriattn.sampling import SamplingParams
from pytriattn.settings import EvictionSettings, check_context_settings, flash_attention, scaled_budget
from pytriattn.stats import TriAttentionStats
from pytriattn.threads import usable_cpus

__all__ = ["Llama"]


class Llama:
    """A model with one context.

    Use it from one thread at a time; a second thread gets `BusyError`. It is a context manager, and `close` frees its memory.

    Args:
        model_path: a GGUF file.
        triattn_stats: a ``.triattention`` file or `TriAttentionStats`. None with a budget: the model is calibrated at load on a
            short text that ships with the package, and the result is kept in the user's cache folder.
        budget: keys kept per layer and KV head. None: the full cache of ``n_ctx`` tokens.
        mode: what keeps its own set of keys: ``per_layer_head``, ``per_head``, ``per_layer`` or ``global``; or, to compare with,
            ``recent`` (the newest keys) and ``random``.
        interval: tokens between evictions.
        window: the newest keys, never evicted. Counts towards the budget, as do the next two.
        n_sink: the first keys, never evicted.
        protect_prompt: never evict the prompt.
        prefill: ``chunked`` reads a long prompt in pieces and evicts in between (bounded memory); ``full`` reads all of it
            first and evicts once, which needs memory for all of ``n_ctx``.
        scale_budget_by_attention: in models where only some layers have full attention, raise the kept fraction b of
            ``n_ctx`` to 1 - (1 - b) * (their number) / (number of layers).
        n_ctx: the largest number of positions; 0: what the model was trained for. Under a budget it allocates nothing, and may be
            any number. A text that goes beyond what the model was trained for is warned of once (`ContextWarning`).
        n_batch: tokens given to llama.cpp at once.
        n_ubatch: tokens computed at once.
        n_threads: CPU threads; None: all that this process may use.
        n_gpu_layers: layers on the GPU; -1: all.
        type_k: type of cached keys: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1.
        type_v: type of cached values.
        flash_attn: ``auto``, or True / False (also ``on`` / ``off``).
        rope_scaling_type: in place of the model's own: ``none``, ``linear``, ``yarn`` or ``longrope``. This and the next
            settings are followed exactly: scores rotate as the model then does. See `RopeSettings`.
        rope_freq_base: base of the frequencies; 0: the model's.
        rope_freq_scale: factor on positions; 0: the model's.
        yarn_ext_factor: mix of extrapolation and interpolation; negative: the model's.
        yarn_attn_factor: factor on rotated dimensions; negative: the model's.
        yarn_beta_fast: bound for fast bands; negative: the model's.
        yarn_beta_slow: bound for slow bands; negative: the model's.
        yarn_orig_ctx: positions before stretching; 0: the model's.
        allow_untested: set a budget for an architecture that has not passed the tests of eviction.
        seed: of sampling and of mode ``random``; None: a new one for each call (mode ``random``: 0).
        verbose: show what llama.cpp logs.

    Raises:
        ModelLoadError: the model file is missing, damaged or of another kind.
        UnsupportedModelError: a budget is set, and nothing can be evicted from this model's cache, or its architecture has not
            been tested.
        StatsError: the statistics are damaged or of another model.
        BudgetError: budget, window, sinks, mode and the others do not fit together.
        ContextError: a cache of this size or these types cannot be made.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        triattn_stats: str | os.PathLike[str] | TriAttentionStats | None = None,
        budget: int | None = None,
        mode: str = "per_layer_head",
        interval: int = 128,
        window: int = 64,
        n_sink: int = 4,
        protect_prompt: bool = False,
        prefill: str = "chunked",
        scale_budget_by_attention: bool = False,
        n_ctx: int = 0,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_gpu_layers: int = -1,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: str | bool = "auto",
        rope_scaling_type: str | int | None = None,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = -1.0,
        yarn_beta_fast: float = -1.0,
        yarn_beta_slow: float = -1.0,
        yarn_orig_ctx: int = 0,
        allow_untested: bool = False,
        seed: int | None = None,
        verbose: bool = False,
    ) -> None:
        """See the class."""
        self._context: Any = None
        self._model: Any = None
        self._call = 0
        self._has_warned = False
        self._seed = seed
        self._protect_prompt = protect_prompt
        if verbose:
            enable_verbose()
        # everything that can be refused is refused before the model is read
        flash = flash_attention(flash_attn)
        check_context_settings(prefill=prefill, n_ctx=n_ctx, type_v=type_v, flash=flash)
        rope = RopeSettings(
            rope_scaling_type,
            rope_freq_base,
            rope_freq_scale,
            yarn_ext_factor,
            yarn_attn_factor,
            yarn_beta_fast,
            yarn_beta_slow,
            yarn_orig_ctx,
        )
        rope.check()
        eviction = None
        if budget is not None:
            eviction = EvictionSettings(budget, mode, interval, window, n_sink, (seed or 0) & 0xFFFFFFFF)
            eviction.check(flash)
        stats = triattn_stats
        if stats is not None and not isinstance(stats, TriAttentionStats):
            stats = TriAttentionStats.load(stats)
        path = check_model_file(model_path)

        try:
            self._load_model(path, n_gpu_layers, n_ctx)
            if eviction is not None:
                check_architecture(self._identity.architecture, allow_untested)
            if stats is not None:
                source = "these statistics" if stats is triattn_stats else f"the statistics '{triattn_stats}'"
                stats.check_model(self._identity, source)
            if eviction is not None and scale_budget_by_attention:
                eviction = replace(eviction, budget=scaled_budget(self._model, eviction.budget, self._n_ctx))
            native_eviction = eviction.to_native() if eviction is not None else None
            n_threads = n_threads or usable_cpus()
            if stats is None and native_eviction is not None and native_eviction.needs_scores:
                stats = bundled_stats(self._model, self._identity, n_threads)
            self._context = core.Context(
                model=self._model,
                n_ctx=self._n_ctx,
                n_batch=n_batch,
                n_ubatch=n_ubatch,
                n_threads=n_threads,
                type_k=type_k,
                type_v=type_v,
                flash_attn=flash,
                rope=rope.to_native(),
                eviction=native_eviction,
                full_prefill=prefill == "full",
                stats=stats.to_native() if stats is not None and native_eviction is not None else None,
            )
        finally:
            forward_llama_log()
        self._stats = stats
        self._eviction = eviction
        # with YaRN set by the user llama.cpp raises it when the context is made
        self._n_ctx_train: int = self._open_model().n_ctx_train

    def _load_model(self, path: Path, n_gpu_layers: int, n_ctx: int) -> None:
        self._model = core.Model(path, n_gpu_layers)
        self._metadata: dict[str, str] = self._model.metadata
        self._identity = model_identity(path, self._metadata)
        self._n_ctx: int = n_ctx or self._model.n_ctx_train
        if 0 < self._model.long_rope_threshold < self._n_ctx:
            # llama.cpp would choose by the size of the cache, which is smaller under a budget
            self._model.use_long_rope()

    # -- text ------------------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = 16,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        echo: bool = False,
        logprobs: int | None = None,
        **sampling: Any,
    ) -> Completion | Iterator[CompletionChunk]:
        """Complete a prompt.

        Args:
            prompt: text, or token ids.
            max_tokens: at most this many; None or a negative number: until the end or ``n_ctx``.
            temperature: 0 always takes the likeliest token.
            top_k: draw from the k likeliest tokens; 0: all.
            top_p: draw from the likeliest tokens that have this probability together; 1: all.
            min_p: drop tokens less likely than this fraction of the likeliest one; 0: none.
            repeat_penalty: above 1 makes tokens of the last 64 less likely.
            stop: end before any of these strings.
            seed: of this call; None: that of the class.
            stream: return an iterator of chunks.
            echo: put the prompt before the completion.
            logprobs: give the log-probabilities of the tokens and of this many best ones at each place.
            **sampling: other fields of `SamplingParams`.

        Returns:
            The completion in the form of OpenAI's text completions, or an iterator of chunks of that form.

        Raises:
            InvalidTokenError: the prompt is empty or has ids that are not in the vocabulary.
            ContextFullError: the prompt is longer than ``n_ctx``.
            BudgetError: ``protect_prompt`` is set and the prompt does not fit the budget.
            ValueError: a sampling value makes no sense.
        """
        params = SamplingParams.checked(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            seed=seed if seed is not None else self._seed,
            **sampling,
        )
        return complete(
            self, prompt, max_tokens=max_tokens, params=params, stop=stop, stream=stream, echo=echo, logprobs=logprobs
        )

    create_completion = __call__

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: the text (bytes: UTF-8).
            add_bos: add the tokens that the model wants around a text, if it wants any.
            special: read control tokens such as ``<|im_end|>`` as tokens, not as text.
        """
        if isinstance(text, str):
            text = text.encode("utf-8", errors="surrogateescape")
        tokens: list[int] = self._open_model().tokenize(text, add_bos, special)
        return tokens

    def detokenize(self, tokens: Iterable[int], special: bool = False) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Args:
            tokens: ids.
            special: also write control tokens.

        Raises:
            InvalidTokenError: an id is not in the vocabulary.
        """
        return b"".join(self.token_bytes(token, special) for token in tokens).decode("utf-8", errors="replace")

    def token_bytes(self, token: int, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; they need not be whole characters."""
        piece: bytes = self._open_model().piece(int(token), special)
        return piece

    # -- tokens ----------------------------------------------------------------------------------------------------------------

    def generate(
        self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]], max_tokens: int | None = None, **sampling: Any
    ) -> Generation:
        """Read a prompt, then return an iterator of generated token ids.

        The cache is cleared first. The prompt has been read when this returns. The iterator ends before an end-of-text token
        (unless ``ignore_eos=True``), after `max_tokens`, or at ``n_ctx``.

        Args:
            tokens: ids of the prompt.
            max_tokens: at most this many; None or a negative number: no limit but ``n_ctx``.
            **sampling: fields of `SamplingParams`.

        Raises:
            InvalidTokenError, ContextFullError, BudgetError, ValueError: as `__call__`.
            BusyError: (from the iterator) a later call has taken the context over.
            ClosedError: the object has been closed.
        """
        sampling.setdefault("seed", self._seed)
        params = SamplingParams.checked(**sampling)
        prompt = self.check_tokens(tokens)
        sampler, limit = self.make_sampler(params, prompt), token_limit(max_tokens)
        self.read_prompt(prompt)
        return Generation(self, sampler, limit, ignore_eos=params.ignore_eos)

    def check_tokens(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """Return token ids as an int32 array.

        Raises:
            InvalidTokenError: they are no whole numbers, not in the vocabulary, or there are none.
        """
        model = self._open_model()
        array = np.asarray(tokens)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise InvalidTokenError("tokens must be a flat sequence of whole numbers")
        if array.size == 0:
            raise InvalidTokenError("the prompt is empty; give at least one token")
        wrong = array[(array < 0) | (array >= model.n_vocab)]
        if wrong.size:
            raise InvalidTokenError(f"token {wrong[0]} is not in the vocabulary of {model.n_vocab}")
        return array.astype(np.int32)

    def read_prompt(
        self, tokens: npt.NDArray[np.int32], n_top_logprobs: int | None = None
    ) -> list[tuple[float, list[tuple[int, float]]]]:
        """Clear the cache and read a prompt; return (log-probability, best tokens) of tokens[1:] if `n_top_logprobs` is given."""
        context = self._open_context()
        if len(tokens) > self._n_ctx:
            raise ContextFullError(
                f"the prompt has {len(tokens)} tokens, more than n_ctx {self._n_ctx}; raise n_ctx or shorten the prompt"
            )
        self.note_position(len(tokens))
        n_protected = len(tokens) if self._protect_prompt else 0
        if self._eviction is not None:
            self._eviction.check_prompt(n_protected)
        self._start_over()
        try:
            if n_top_logprobs is None:
                context.read(0, tokens, n_protected)
                return []
            found: list[tuple[float, list[tuple[int, float]]]] = context.read_with_logprobs(
                0, tokens, n_protected, n_top_logprobs
            )
            return found
        finally:
            forward_llama_log()

    def next_logprobs(self, token: int, n_top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-probability of `token` as the next one, and the `n_top` likeliest tokens with theirs."""
        result: tuple[float, list[tuple[int, float]]] = self._open_context().row_logprobs(-1, token, n_top)
        return result

    def logprobs(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Return the natural-log probability of each token after the first, given those before it.

        The cache is cleared and the text is read in steps of ``interval``, evicting exactly where decoding would: what perplexity
        and every other measure of quality under a budget rests on.

        Args:
            tokens: n ids, at least one.

        Returns:
            float32 [n - 1].

        Raises:
            InvalidTokenError, ContextFullError: as `__call__`.
        """
        array = self.check_tokens(tokens)
        context = self._open_context()
        if len(array) > self._n_ctx:
            raise ContextFullError(
                f"{len(array)} tokens are more than n_ctx {self._n_ctx}; raise n_ctx or shorten the text"
            )
        self.note_position(len(array))
        self._start_over()
        try:
            values: npt.NDArray[np.float32] = context.logprobs(array)
        finally:
            forward_llama_log()
        return values

    # -- the cache -------------------------------------------------------------------------------------------------------------

    def kv_stats(self) -> KVStats:
        """Return what the KV cache holds, what it has allocated and what eviction has cost."""
        return kv_stats_of(self._open_context())

    def kept_positions(self, layer: int, kv_head: int) -> npt.NDArray[np.int32]:
        """Return which tokens' keys a head still holds: their positions, int32, ascending.

        Raises:
            ContextError: the layer has no full-attention cache, or no such head.
        """
        positions: npt.NDArray[np.int32] = self._open_context().kept_positions(0, layer, kv_head)
        return positions

    @property
    def attention_layers(self) -> list[int]:
        """Indices of the layers with full attention, those that are evicted from."""
        return [layer for layer, *_ in self._open_context().layers]

    def reset(self) -> None:
        """Forget what has been read."""
        self._start_over()

    def abandon(self) -> None:
        """Forget what has been read, after a call that was interrupted or has failed halfway."""
        self._call += 1
        if self._context is not None and not self._context.closed:
            self._context.clear()

    def note_position(self, n_tokens: int) -> None:
        """Warn, the first time, of a text of `n_tokens` that goes beyond what the model was trained for."""
        if 0 < self._n_ctx_train < n_tokens and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the text goes beyond the {self._n_ctx_train} positions that this model was trained for; what it predicts "
                "there may be poor. Stretch its context by rope_freq_scale or YaRN, or keep texts shorter",
                ContextWarning,
                stacklevel=2,
            )

    def _start_over(self) -> None:
        self._open_context().clear()  # refused if another thread is at work; then nothing has changed
        self._call += 1

    def make_sampler(self, params: SamplingParams, prompt: npt.NDArray[np.int32]) -> Any:
        """Return a ``_core.Sampler`` for what follows a prompt."""
        return params.make_sampler(self._open_model(), prompt, self._n_ctx)

    # -- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Tokens read so far."""
        n: int = self._open_context().n_tokens()
        return n

    @property
    def metadata(self) -> dict[str, str]:
        """The model's GGUF metadata as text (no arrays)."""
        return dict(self._metadata)

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, as statistics name it."""
        return self._identity

    @property
    def triattn_stats(self) -> TriAttentionStats | None:
        """The statistics in use."""
        return self._stats

    @property
    def budget(self) -> int | None:
        """Keys kept per layer and KV head; None: all."""
        return None if self._eviction is None else self._eviction.budget

    @property
    def native_model(self) -> Any:
        """The ``_core.Model``; not a part of the stable interface."""
        return self._open_model()

    @property
    def native_context(self) -> Any:
        """The ``_core.Context``; not a part of the stable interface."""
        return self._open_context()

    @property
    def call_number(self) -> int:
        """Counts the texts that have been read, so that an iterator can tell whether its own is still there."""
        return self._call

    def n_ctx(self) -> int:
        """Return the largest number of positions."""
        return self._n_ctx

    def n_vocab(self) -> int:
        """Return the size of the vocabulary."""
        n: int = self._open_model().n_vocab
        return n

    def token_bos(self) -> int:
        """Return the id of the token that begins a text."""
        token: int = self._open_model().bos
        return token

    def token_eos(self) -> int:
        """Return the id of the token that ends a text."""
        token: int = self._open_model().eos
        return token

    # -- life ------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model and the cache. Closing twice is harmless.

        Raises:
            BusyError: another thread is computing with it.
        """
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model = None

    def __enter__(self) -> Llama:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the object."""
        self.close()

    def _open_model(self) -> Any:
        if self._model is None:
            raise ClosedError("this Llama has been closed")
        return self._model

    def _open_context(self) -> Any:
        if self._context is None:
            raise ClosedError("this Llama has been closed")
        return self._context
