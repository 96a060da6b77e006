"""Placing a foreign file's bands in the dimensions of a model's heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn.conversion.formats.foreign import Floats
from pytriattn.errors import StatsError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind
from pytriattn.stats.layer_stats import LayerStats

__all__ = ["CacheOwner", "Dims", "cache_owners", "own_pairs", "regroup_magnitudes"]

Dims = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CacheOwner:
    """A layer that owns a full cache, and the layers whose queries read it: itself first."""

    info: LayerInfo
    readers: tuple[LayerInfo, ...]
    whole_head_is_interleaved: bool

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Return (layer, query head) of each head of our `LayerStats`: all readers of one KV head side by side."""
        n_kv = self.info.n_head_kv
        return [
            (reader.index, head)
            for kv in range(n_kv)
            for reader in self.readers
            for head in range(kv * reader.n_head // n_kv, (kv + 1) * reader.n_head // n_kv)
        ]

    def empty(self, n_ctx: int) -> LayerStats:
        """Return statistics of nothing, with the layer's RoPE."""
        d, rope, n_head = self.info.head_dim_k, self.info.rope, len(self.heads)
        n_rot = rope.n_rot if rope else 0
        return LayerStats(
            layer=self.info.index,
            n_head=n_head,
            n_head_kv=self.info.n_head_kv,
            rot_begin=rope.rot_begin if rope and n_rot else 0,
            n_rot=n_rot,
            interleaved=bool(rope and n_rot and (rope.interleaved or n_rot == 2)),
            scale=rope.scale if rope and n_rot else 1.0,
            omega=rope.omega(n_ctx) if rope and n_rot else np.zeros(d // 2, np.float64),
            centre=np.zeros((n_head, d), np.float32),
            magnitude=np.zeros((n_head, d // 2), np.float32),
        )

    def file_pairs(self, layer: LayerStats, n_bands: int) -> Dims:
        """Return the dimensions of a file's bands, int64 [F, 2].

        Where F is half the rotated dimensions, bands are those that RoPE turns. Where it is half the head although RoPE
        turns less, or nothing, the file has paired a whole head as if all of it rotated.

        Raises:
            StatsError: F is neither.
        """
        d = layer.head_dim
        if layer.n_rot and 2 * n_bands == layer.n_rot:
            return own_pairs(layer)[layer.rot_begin // 2 :][:n_bands]
        if 2 * n_bands != d:
            raise StatsError(
                f"the file has {n_bands} bands in layer {layer.layer}, but the model rotates {layer.n_rot} of {d} "
                f"dimensions there, which makes {layer.n_rot // 2} (or {d // 2} for a whole head)"
            )
        dims = np.arange(d)
        return dims.reshape(-1, 2) if self.whole_head_is_interleaved else dims.reshape(2, -1).T


def own_pairs(layer: LayerStats) -> Dims:
    """Return the dimensions of each band as RoPE pairs them, int64 [n_bands, 2]."""
    return np.asarray(layer.to_native().band_dims, dtype=np.int64)


def cache_owners(model: ModelInfo) -> list[CacheOwner]:
    """Return the layers with full attention.

    Raises:
        StatsError: there are none.
    """
    full = model.layers_of(LayerKind.FULL)
    if not full:
        raise StatsError(f"the model '{model.path}' has no layer with full attention, so it has no use for statistics")
    ropes = [layer.rope for layer in full if layer.rope is not None and layer.rope.n_rot]
    # a checkpoint whose pairs are halves is permuted as a whole on its way to GGUF: layers without RoPE as well
    any_interleaved = any(rope.interleaved for rope in ropes)
    caches = []
    for layer in full:
        rope = layer.rope if layer.rope is not None and layer.rope.n_rot else None
        shared = (other for other in model.layers_of(LayerKind.SHARED) if other.owner == layer.index)
        caches.append(CacheOwner(layer, (layer, *shared), rope.interleaved if rope else any_interleaved))
    return caches


def regroup_magnitudes(magnitude: Floats, centre: Floats, pairs: Dims, wanted: Dims) -> Floats:
    """Return mean lengths of the pairs `wanted`, float32 [n_head, len(wanted)], from those of `pairs`.

    The same pair has the same length. Where pairs differ it is estimated: what a pair's mean square exceeds its
    centre's by is taken to be half of each dimension. Dimensions in no pair have none.

    Args:
        magnitude: [n_head, len(pairs)].
        centre: [n_head, head_dim].
        pairs: dimensions, [len(pairs), 2].
        wanted: dimensions, [len(wanted), 2].
    """
    band_of = np.full(centre.shape[1], -1)
    band_of[pairs[:, 0]] = band_of[pairs[:, 1]] = np.arange(len(pairs))
    square = centre.astype(np.float64) ** 2
    spread = np.zeros_like(square)
    excess = magnitude.astype(np.float64) ** 2 - square[:, pairs].sum(axis=2)
    spread[:, pairs[:, 0]] = spread[:, pairs[:, 1]] = 0.5 * np.maximum(excess, 0)
    with np.errstate(over="ignore"):  # what becomes infinite is refused later
        estimate = np.sqrt((square + spread)[:, wanted].sum(axis=2)).astype(np.float32)
    bands = band_of[wanted]
    is_same = (bands[:, 0] == bands[:, 1]) & (bands[:, 0] >= 0)
    return np.where(is_same, magnitude[:, bands[:, 0]], estimate)
