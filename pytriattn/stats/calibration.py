"""Measuring a model's query statistics on a text."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from threadpoolctl import threadpool_limits

from pytriattn._native import backends, core
from pytriattn._native.log import forward_llama_log
from pytriattn._native.rpc_servers import check_rpc_servers
from pytriattn._util.cpus import idle_cpus
from pytriattn.errors import StatsError, StatsWarning, UnsupportedModelError
from pytriattn.gguf.identity import ModelIdentity, check_model_file, model_identity
from pytriattn.stats.key_fit import KeyFitter
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats


class CalibratableModel(Protocol):
    """A loaded model, such as a `Llama`."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""

    def _open_model(self) -> core.Model: ...


__all__ = ["DEFAULT_TOKENS", "calibrate", "calibrate_native"]

DEFAULT_TOKENS = 4096
MIN_TOKENS = 32
LEAST_R2 = 0.2
"""A fit that explains less of the held-out attention is warned of."""
_READ_AGAIN = 160  # tokens that are read a second time lie behind the text


_CHARS_PER_TOKEN = 64  # more than any tokenizer needs on text; only a first guess

Progress = Callable[[int, int], None]


def _first_tokens(model: core.Model, text: str, n_tokens: int) -> list[int]:
    """Return the first `n_tokens` tokens of `text` without tokenizing all of a huge one."""
    length = n_tokens * _CHARS_PER_TOKEN
    while True:
        tokens = model.tokenize(text[:length].encode("utf-8", errors="surrogateescape"), True, False)
        if len(tokens) >= n_tokens or length >= len(text):
            return tokens[:n_tokens]
        length *= 4


def calibrate_native(
    model: core.Model,
    identity: ModelIdentity,
    text: str,
    *,
    n_tokens: int,
    n_ctx: int,
    n_threads: int | None,
    progress: Progress | None,
    fit: bool = True,
) -> TriAttentionStats:
    """Measure the statistics of a loaded model; see `calibrate`.

    Raises:
        StatsError: the text is too short, or `n_tokens` or `n_ctx` has no meaning.
    """
    if n_tokens < MIN_TOKENS:
        raise StatsError(f"{n_tokens} tokens are too few to calibrate on; use at least {MIN_TOKENS}")
    if n_ctx < MIN_TOKENS:
        raise StatsError(f"a context of {n_ctx} tokens is too small to calibrate with; use at least {MIN_TOKENS}")
    if not model.has_vocab:
        raise StatsError("this model file has no tokenizer, so it cannot read a text; take a file that has one")
    tokens = _first_tokens(model, text, n_tokens)
    if len(tokens) < MIN_TOKENS:
        raise StatsError(f"the text has {len(tokens)} tokens; at least {MIN_TOKENS} are needed, some thousand are good")
    if model.n_ctx_train > 0:
        n_behind = _READ_AGAIN if fit else 0
        n_ctx = min(n_ctx, max(model.n_ctx_train - n_behind, MIN_TOKENS))
    fitter = KeyFitter() if fit else None

    def measure(fitter: KeyFitter | None) -> core.Stats:
        return core.calibrate(
            model,
            tokens,
            n_ctx=min(n_ctx, len(tokens)),
            n_ubatch=512,
            n_threads=n_threads or idle_cpus(),
            progress=progress,
            on_keys=None if fitter is None else fitter.add,
        )

    # The fit multiplies small matrices: BLAS's threads would wait for each other, for minutes on a busy machine.
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            native = measure(fitter)
        except UnsupportedModelError as error:
            if fitter is None:
                raise
            native, fitter = measure(None), None
            _warn(
                f"there are no fitted weights for this model: {error}; keys can be chosen by the published score alone"
            )
        finally:
            forward_llama_log()
        layers = [LayerStats.from_native(layer) for layer in native.layers]
        found = None if fitter is None else fitter.fit()
    if found is not None:
        layers = found.put_into(layers)
        if found.r2 < LEAST_R2:
            _warn(
                f"the fit foresees little of the attention that keys got (held-out R² {found.r2:.2f}, {found.n_keys} "
                f"keys); calibrate on some {DEFAULT_TOKENS} tokens of the kind of text that you will read"
            )
    return TriAttentionStats(
        layers=tuple(layers),
        model=identity,
        n_tokens=native.n_tokens,
        corpus_sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        fit_r2=None if found is None else found.r2,
    )


def _warn(message: str) -> None:
    warnings.warn(message, StatsWarning, stacklevel=4)


def calibrate(
    model: CalibratableModel | str | os.PathLike[str],
    text_or_path: str | os.PathLike[str],
    *,
    n_tokens: int = DEFAULT_TOKENS,
    n_ctx: int = 2048,
    n_gpu_layers: int = -1,
    n_threads: int | None = None,
    rpc_servers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> TriAttentionStats:
    """Measure centre and magnitude of a model's queries on a text, and fit expected attention.

    Args:
        model: a loaded `Llama`, or the path of a GGUF file.
        text_or_path: the text itself, or a ``pathlib.Path`` (or a string that names an existing file) to read it from.
        n_tokens: how many tokens of the text to read; fewer if it is shorter.
        n_ctx: the text is read in pieces of this many tokens.
        n_gpu_layers: layers on the GPU when `model` is a path; -1: all.
        n_threads: CPU threads; None: one for each CPU that no other program needs when it begins.
        rpc_servers: as in `Llama`, when `model` is a path.
        progress: called with (tokens read, tokens in all) after each step.

    Raises:
        ModelLoadError: the model cannot be loaded.
        StatsError: the text is too short, or not UTF-8.
        UnsupportedModelError: the model's queries cannot be observed.
        BackendError: a backend's plug-in that is installed cannot be used.
    """
    text = _text_of(text_or_path)
    if isinstance(model, (str, os.PathLike)):
        path = check_model_file(model)
        backends.require()
        native = core.Model(path, n_gpu_layers, rpc_servers=check_rpc_servers(rpc_servers))
        identity = model_identity(path)
    else:
        native, identity = model._open_model(), model.identity
    return calibrate_native(
        native, identity, text, n_tokens=n_tokens, n_ctx=n_ctx, n_threads=n_threads, progress=progress
    )


def _text_of(text_or_path: str | os.PathLike[str]) -> str:
    if isinstance(text_or_path, str) and not _names_a_file(text_or_path):
        return text_or_path
    path = Path(text_or_path)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StatsError(f"the text '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StatsError(f"the text '{path}' is not UTF-8: {error}") from error


def _names_a_file(text: str) -> bool:
    if len(text) > 4096 or "\n" in text or "\0" in text:
        return False
    try:
        return Path(text).is_file()
    except OSError:
        return False
