"""The bytes of a context's caches, before there is one: the same sums as in llama.cpp and in our engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytriattn.gguf_types import row_bytes

if TYPE_CHECKING:
    from pytriattn.model_info import KVBytes, LayerInfo, ModelInfo

__all__ = ["CACHE_TYPES", "QUANTISED_TYPES", "CacheSettings", "Cells", "cells_of", "kv_bytes"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
QUANTISED_TYPES = CACHE_TYPES[3:]
"""Values of these types need flash attention."""
PADDING = 256
"""llama.cpp rounds cells up to this."""
LARGEST_CACHE = (1 << 31) - 1
STATE_BYTES = 4
"""Recurrent states are float32, whatever the types of K and V."""


@dataclass(frozen=True)
class CacheSettings:
    """What a context is made with; see `ModelInfo.kv_bytes`."""

    ctx: int
    budget: int | None
    interval: int
    n_batch: int
    n_ubatch: int
    type_k: str
    type_v: str
    parallel: int
    flash_attn: bool
    full_prefill: bool

    def check(self) -> None:
        """Check values that make no sense for any model.

        Raises:
            ValueError: one of them does not; the message names it.
        """
        for name in ("interval", "n_batch", "n_ubatch", "parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.ctx < 0:
            raise ValueError(f"ctx is {self.ctx}, it must not be negative")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"budget is {self.budget}, it must be at least 1, or None")
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in CACHE_TYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}, it must be one of {', '.join(CACHE_TYPES)}")


@dataclass(frozen=True)
class Cells:
    """How many positions a sequence has room for.

    Attributes:
        full: in layers with full attention.
        sliding: in sliding-window layers.
    """

    full: int
    sliding: int


def cells_of(settings: CacheSettings, n_ctx: int, window: int) -> Cells:
    """Return the cells that a context of `n_ctx` positions gets for each sequence.

    The rule is that of ``cache_size`` in the engine (vendor/llama.cpp/triattention/decoder.cpp), and for sliding layers that of
    llama.cpp (src/llama-kv-cache-iswa.cpp).

    Args:
        settings: of the context.
        n_ctx: its positions.
        window: of sliding attention; 0: none.

    Raises:
        ValueError: the cache would be too large to be counted.
    """
    whole = _pad(n_ctx)
    cells, chunk = whole, min(settings.n_batch, whole)
    batch = chunk
    if settings.budget is not None and not settings.full_prefill:
        # a step beyond the budget has to fit: an interval at least, at most a quarter of the budget
        room = max(settings.interval, min(settings.n_ubatch, settings.budget // 4))
        cells = min(_pad(settings.budget + room), whole)
        chunk = min(settings.n_ubatch, settings.n_batch, cells - settings.budget if cells < whole else cells)
        batch = min(max(chunk, settings.interval), cells)
    batch = max(batch, settings.parallel)
    n_ubatch = min(settings.n_ubatch, batch)
    if window > 0:
        cells = min(max(cells, _pad(window + n_ubatch)), whole)
    if cells * settings.parallel > LARGEST_CACHE:
        raise ValueError(
            f"{settings.parallel} × {cells} cells are more than llama.cpp can count; lower ctx or set a budget"
        )
    return Cells(cells, _pad(min(cells, window + n_ubatch)))


def kv_bytes(info: ModelInfo, settings: CacheSettings) -> KVBytes:
    """Return the bytes that the caches of a context take; see `ModelInfo.kv_bytes`.

    Raises:
        ValueError: a value makes no sense, or a type does not divide a head.
    """
    from pytriattn.model_info import KVBytes, LayerKind

    settings.check()
    n_ctx = settings.ctx or info.n_ctx_train
    if n_ctx < 1:
        raise ValueError("the file does not tell how many positions the model was trained for; give ctx")
    flash = settings.flash_attn and info.flash_attention
    _check_types(info, settings, flash)
    cells = cells_of(settings, n_ctx, info.cell_window)
    cached = [layer for layer in info.layers if layer.has_cells]
    # without flash attention V is transposed, and its rows have to be equally long in all layers, cached or not
    widest = 0 if flash else info.widest_v

    def of_layer(layer: LayerInfo, n_cells: int) -> int:
        widths_k = layer.k_width, layer.index_k_width
        widths_v = max(layer.v_width, widest), layer.index_v_width
        row = sum(row_bytes(settings.type_k, width) for width in widths_k)
        return n_cells * (row + sum(row_bytes(settings.type_v, width) for width in widths_v))

    full = sum(of_layer(layer, cells.full) for layer in cached if layer.kind is not LayerKind.SLIDING)
    sliding = sum(of_layer(layer, cells.sliding) for layer in cached if layer.kind is LayerKind.SLIDING)
    recurrent = sum(layer.state_size for layer in info.layers) * STATE_BYTES
    return KVBytes(
        full=settings.parallel * full,
        sliding=settings.parallel * sliding,
        recurrent=settings.parallel * recurrent,
        cells_full=cells.full,
        cells_sliding=cells.sliding if sliding else 0,
    )


def _pad(n_cells: int) -> int:
    return -(-n_cells // PADDING) * PADDING


def _check_types(info: ModelInfo, settings: CacheSettings, flash: bool) -> None:
    type_k, type_v = settings.type_k, settings.type_v
    if type_v in QUANTISED_TYPES and not flash:
        without = "" if info.flash_attention else f", which {info.architecture} models cannot have"
        raise ValueError(f"type_v={type_v!r} needs flash attention{without}; use type_v='f16'")
    for layer in info.layers:
        if not layer.has_cells or layer.k_width == 0:
            continue
        if layer.head_dim_v == 0 and type_k != type_v:
            raise ValueError(
                f"type_k and type_v are {type_k!r} and {type_v!r}, but latent attention stores one row for both; make them equal"
            )
        for name, kind, head_dim in (
            ("type_k", type_k, layer.head_dim_k),
            ("type_v", type_v, layer.head_dim_v),
            ("type_k", type_k, layer.index_k_width),
        ):
            try:
                row_bytes(kind, head_dim)
            except ValueError as error:
                raise ValueError(
                    f"{name}={kind!r} does not fit heads of {head_dim} in layer {layer.index}: {error}"
                ) from None
