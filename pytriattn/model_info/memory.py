"""What the caches of a context take, layer type by layer type, and what fits in a given memory.

Everything rests on `ModelInfo.kv_bytes`, which counts what llama.cpp allocates. Buffers for computation come on top;
they depend on the device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

from pytriattn.errors import ContextError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings

__all__ = [
    "Fit",
    "LayerMemory",
    "evictable_layers",
    "full_cache",
    "layer_memory",
    "scaled_budget_of",
    "what_fits",
]

_STEP = 256  # llama.cpp rounds cells up to this
_MAX_CELLS = 2**31 - 1  # of all sequences together


@dataclass(frozen=True)
class LayerMemory:
    """What the layers of one type take together.

    Attributes:
        kind: the type.
        n_layers: the number of layers.
        bytes_per_token: the bytes of a cached token in all of them; 0 if memory does not grow with the tokens.
        cells: tokens that a sequence can have there at most; 0 where memory does not depend on it.
        bytes: the bytes of all sequences.
    """

    kind: LayerKind
    n_layers: int
    bytes_per_token: int
    cells: int
    bytes: int


def layer_memory(info: ModelInfo, settings: CacheOptions) -> tuple[LayerMemory, ...]:
    """Return what each type of layer takes; only types that the model has.

    Layers that read another layer's cache, that have no attention or that are for multi-token prediction have 0 bytes.

    Raises:
        ContextError: such a cache cannot be made.
    """
    kv = info.cache_bytes(settings)
    # all layers of a cache have as many cells, so what a token takes is exact
    found = {
        LayerKind.FULL: (kv.cells_full, kv.full),
        LayerKind.SLIDING: (kv.cells_sliding, kv.sliding),
        LayerKind.RECURRENT: (0, kv.recurrent),
    }
    result = []
    for kind in LayerKind:
        n_layers = len(info.layers_of(kind))
        cells, n_bytes = found.get(kind, (0, 0))
        if n_layers or n_bytes:
            n_cells = cells * settings.n_seq_max
            result.append(LayerMemory(kind, n_layers, n_bytes // n_cells if n_cells else 0, cells, n_bytes))
    return tuple(result)


def full_cache(info: ModelInfo, settings: CacheOptions) -> tuple[LayerMemory, ...] | None:
    """Return what each type of layer takes without a budget.

    None where `settings` have a budget and a cache without one would have more cells than llama.cpp can count.

    Raises:
        ContextError: such a cache cannot be made for another reason.
    """
    try:
        return layer_memory(info, settings.with_budget(None))
    except ContextError:
        if settings.budget is None:
            raise
        layer_memory(info, settings)  # raises if something else is wrong
        return None


@dataclass(frozen=True)
class Fit:
    """What fits in a given memory.

    Attributes:
        memory: bytes there are.
        weights: bytes of the model file.
        largest_ctx: positions of each sequence without a budget; None: not even 256 of them.
        ctx_is_unlimited: the largest context that llama.cpp can count fits.
        largest_budget: keys for a text of `ctx` positions, at most `ctx`; None: not even the smallest possible.
        ctx: positions that `largest_budget` is meant for.
    """

    memory: int
    weights: int
    largest_ctx: int | None
    ctx_is_unlimited: bool
    largest_budget: int | None
    ctx: int


def what_fits(info: ModelInfo, settings: CacheOptions, memory: int) -> Fit:
    """Return the largest context and the largest budget whose caches fit beside the weights in `memory` bytes.

    Raises:
        ContextError: a cache cannot be made with these settings.
    """

    def takes(ctx: int, budget: int | None) -> int:
        return info.file_bytes + info.cache_bytes(replace(settings, n_ctx=ctx).with_budget(budget)).total

    limit = info.n_ctx_train if info.has_learned_positions else _MAX_CELLS // settings.n_seq_max // _STEP * _STEP
    limit = max(1, limit)
    n_steps = limit // _STEP
    # cells come in steps, so only whole steps can be the largest
    n_fitting = bisect_left(range(1, n_steps + 1), True, key=lambda n: takes(n * _STEP, None) > memory)
    largest_ctx = n_fitting * _STEP
    if n_fitting == n_steps and takes(limit, None) <= memory:
        largest_ctx = limit
    ctx = info.positions(settings)
    return Fit(
        memory=memory,
        weights=info.file_bytes,
        largest_ctx=largest_ctx or None,
        ctx_is_unlimited=largest_ctx == limit,
        largest_budget=_largest_budget(ctx, settings, lambda budget: takes(ctx, budget) <= memory),
        ctx=ctx,
    )


def _largest_budget(ctx: int, settings: CacheOptions, fits: Callable[[int], bool]) -> int | None:
    least = (settings.eviction or EvictionSettings(1)).least_budget
    # A step takes a quarter of the budget but n_ubatch at most, and the sliding layers' cells follow it: up to that
    # point more budget may take less memory, beyond it never.
    start = min(4 * settings.n_ubatch, ctx)
    if fits(start):
        return start + bisect_left(range(start + 1, ctx + 1), True, key=lambda budget: not fits(budget))
    return next((budget for budget in range(start - 1, least - 1, -1) if fits(budget)), None)


def evictable_layers(info: ModelInfo) -> tuple[LayerInfo, ...]:
    """Return the layers that a budget evicts from: those with full attention and a cache of their own."""
    return tuple(layer for layer in info.layers_of(LayerKind.FULL) if layer.n_head_kv > 0)


def scaled_budget_of(info: ModelInfo, budget: int, ctx: int) -> int:
    """Return the budget that ``scale_budget_by_attention`` makes of `budget`.

    The kept fraction b of `ctx` becomes 1 - (1 - b) * (layers with full attention) / (layers); never less than
    `budget`.
    """
    kept = min(1.0, budget / ctx)
    n_attention = len(evictable_layers(info))
    return max(budget, round(ctx * (1 - (1 - kept) * n_attention / info.n_layer)))
