"""The bytes of a context's caches, before it is made: the engine's number of cells times ggml's bytes of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pytriattn._native import core
from pytriattn.errors import ContextError
from pytriattn.gguf.types import block_size, row_bytes
from pytriattn.model_info.layers import LayerInfo, LayerKind
from pytriattn.options.cache import CACHE_TYPES, QUANTISED_TYPES, CacheOptions
from pytriattn.options.eviction import EvictionSettings

__all__ = ["CachedModel", "KVBytes", "check_cache_types", "kv_bytes"]

STATE_BYTES = 4
"""Recurrent states are float32, whatever the types of K and V."""


class CachedModel(Protocol):
    """The facts that the size of a model's caches depends on. A `ModelInfo` has them."""

    @property
    def architecture(self) -> str:
        """``general.architecture``."""

    @property
    def n_ctx_train(self) -> int:
        """Positions that the model was trained for."""

    @property
    def layers(self) -> Sequence[LayerInfo]:
        """All layers, in order."""

    @property
    def cell_window(self) -> int:
        """The window that the number of cells depends on; 0: none."""

    @property
    def widest_v(self) -> int:
        """Values of V for a token in the widest layer."""

    @property
    def flash_attention(self) -> bool:
        """Whether llama.cpp runs the model with flash attention."""


@dataclass(frozen=True)
class KVBytes:
    """Bytes of the caches of a context, as llama.cpp allocates them.

    Attributes:
        full: K and V of layers with full attention.
        sliding: K and V of sliding-window layers.
        recurrent: recurrent states.
        cells_full: cells of layers with full attention, for each sequence.
        cells_sliding: cells of sliding-window layers, for each sequence.
    """

    full: int
    sliding: int
    recurrent: int
    cells_full: int
    cells_sliding: int

    @property
    def total(self) -> int:
        """Return all bytes together."""
        return self.full + self.sliding + self.recurrent


def kv_bytes(model: CachedModel, options: CacheOptions) -> KVBytes:
    """Return the bytes that the caches of a context take; see `ModelInfo.kv_bytes`.

    Raises:
        ContextError: a value makes no sense, or a type does not divide a head.
    """
    _check_values(options)
    n_ctx = options.n_ctx or model.n_ctx_train
    if n_ctx < 1:
        raise ContextError("the file does not tell how many positions the model was trained for; give n_ctx")
    check_cache_types(model, options)
    flash = _has_flash_attention(model, options)
    size = core.cache_size(_params(options, n_ctx), model.cell_window)
    cached = [layer for layer in model.layers if layer.has_cells]
    # without flash attention V is transposed, and its rows have to be equally long in all layers, cached or not
    widest = 0 if flash else model.widest_v

    def of_layer(layer: LayerInfo, n_cells: int) -> int:
        widths_k = layer.k_width, layer.index_k_width
        widths_v = max(layer.v_width, widest), layer.index_v_width
        row = sum(row_bytes(options.type_k, width) for width in widths_k)
        return n_cells * (row + sum(row_bytes(options.type_v, width) for width in widths_v))

    full = sum(of_layer(layer, size.n_cells) for layer in cached if layer.kind is not LayerKind.SLIDING)
    sliding = sum(of_layer(layer, size.n_cells_sliding) for layer in cached if layer.kind is LayerKind.SLIDING)
    recurrent = sum(layer.state_size for layer in model.layers) * STATE_BYTES
    return KVBytes(
        full=options.n_seq_max * full,
        sliding=options.n_seq_max * sliding,
        recurrent=options.n_seq_max * recurrent,
        cells_full=size.n_cells,
        cells_sliding=size.n_cells_sliding if sliding else 0,
    )


def _params(options: CacheOptions, n_ctx: int) -> core.DecoderParams:
    """Return what the engine needs to tell the number of cells: this does not depend on mode, window and sinks."""
    eviction = options.eviction
    if eviction is not None:
        eviction = EvictionSettings(eviction.budget, "recent", eviction.interval, window=1, n_sink=0)
    return replace(options, n_ctx=n_ctx, eviction=eviction).to_native(n_threads=1)


def check_cache_types(model: CachedModel, options: CacheOptions) -> None:
    """Check that the cache can have these types: that whole blocks of them fill each head's rows.

    Raises:
        ContextError: it cannot; the message names the type, the head and the types that fit.
    """
    type_k, type_v = options.type_k, options.type_v
    if type_v in QUANTISED_TYPES and not _has_flash_attention(model, options):
        without = "" if model.flash_attention else f", which {model.architecture} models cannot have"
        raise ContextError(f"type_v={type_v!r} needs flash attention{without}; use type_v='f16'")
    for layer in model.layers:
        if not layer.has_cells or layer.k_width == 0:
            continue
        if layer.head_dim_v == 0 and type_k != type_v:
            raise ContextError(
                f"type_k and type_v are {type_k!r} and {type_v!r}, but latent attention stores one row for both; make "
                "them equal"
            )
        for name, kind, head_dim in (
            ("type_k", type_k, layer.head_dim_k),
            ("type_v", type_v, layer.head_dim_v),
            ("type_k", type_k, layer.index_k_width),
        ):
            try:
                row_bytes(kind, head_dim)
            except ValueError as error:
                raise ContextError(
                    f"{name}={kind!r} does not fit heads of {head_dim} in layer {layer.index}: {error}; use "
                    f"{' or '.join(_types_that_fit(head_dim))}"
                ) from None


def _has_flash_attention(model: CachedModel, options: CacheOptions) -> bool:
    return options.allows_flash_attention and model.flash_attention


def _types_that_fit(head_dim: int) -> list[str]:
    """Return the types of fewer bits than f16 that have rows of this width; f16 if there are none."""
    return [kind for kind in CACHE_TYPES if kind in QUANTISED_TYPES and head_dim % block_size(kind) == 0] or ["f16"]


def _check_values(options: CacheOptions) -> None:
    if options.eviction is None:
        return
    if options.eviction.budget < 1:
        raise ContextError(f"budget is {options.eviction.budget}, it must be at least 1, or None")
    if options.eviction.interval < 1:
        raise ContextError(f"interval is {options.eviction.interval}, it must be at least 1")
