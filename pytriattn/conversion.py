"""Statistics of other programs to ours and back: placing bands in a model's dimensions, and checking that they fit it.

A foreign file has bands: complex numbers, the f-th for the f-th rotated pair of a checkpoint's dimensions. They mean the same
wherever a GGUF keeps that pair, so values carry over and only their places change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.conversion_checks import check_fits, notes_on
from pytriattn.errors import StatsError
from pytriattn.formats.foreign import Floats, ForeignLayer, ForeignStats, HeadBands
from pytriattn.model_file import ModelIdentity
from pytriattn.model_info import LayerInfo, LayerKind, ModelInfo
from pytriattn.stats import LayerStats, TriAttentionStats

__all__ = ["Exported", "Imported", "export_per_layer", "export_uniform", "import_stats"]

_Dims = npt.NDArray[np.int64]


class Imported(NamedTuple):
    """What `import_stats` returns.

    Attributes:
        stats: of every layer with full attention.
        notes: what a user should know, a sentence each.
    """

    stats: TriAttentionStats
    notes: tuple[str, ...]


class Exported(NamedTuple):
    """What `export_uniform` and `export_per_layer` return.

    Attributes:
        foreign: for a writer of `pytriattn.formats`.
        notes: what the format cannot hold, a sentence each.
    """

    foreign: ForeignStats
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Cache:
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

    def file_pairs(self, layer: LayerStats, n_bands: int) -> _Dims:
        """Return the dimensions of a file's bands, int64 [F, 2].

        Where F is half the rotated dimensions, bands are those that RoPE turns. Where it is half the head although RoPE turns
        less, or nothing, the file has paired a whole head as if all of it rotated.

        Raises:
            StatsError: F is neither.
        """
        d = layer.head_dim
        if layer.n_rot and 2 * n_bands == layer.n_rot:
            return _own_pairs(layer)[layer.rot_begin // 2 :][:n_bands]
        if 2 * n_bands != d:
            raise StatsError(
                f"the file has {n_bands} bands in layer {layer.layer}, but the model rotates {layer.n_rot} of {d} dimensions there, "
                f"which makes {layer.n_rot // 2} (or {d // 2} for a whole head)"
            )
        dims = np.arange(d)
        return dims.reshape(-1, 2) if self.whole_head_is_interleaved else dims.reshape(2, -1).T


def _own_pairs(layer: LayerStats) -> _Dims:
    return np.asarray(layer.to_native().band_dims, dtype=np.int64)


def _caches(model: ModelInfo) -> list[_Cache]:
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
        caches.append(_Cache(layer, (layer, *shared), rope.interleaved if rope else any_interleaved))
    return caches


def _repaired(magnitude: Floats, centre: Floats, pairs: _Dims, wanted: _Dims) -> Floats:
    """Return mean lengths of the pairs `wanted`, float32 [n_head, len(wanted)], from those of `pairs`.

    The same pair has the same length. Where pairs differ it is estimated: what a pair's mean square exceeds its centre's by is
    taken to be half of each dimension. Dimensions in no pair have none.

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


# --- from others ---


def import_stats(
    foreign: ForeignStats, model: ModelInfo, identity: ModelIdentity, *, ignore_rope_theta: bool = False
) -> Imported:
    """Convert foreign statistics to ours.

    - Dimensions that RoPE does not turn and the file does not cover get centre 0 and magnitude 0: they count neither in S_trig
      nor in S_norm, so keys are scored by the rotated part alone.
    - A query head that the file lacks gets the statistics of the first one that reads the same KV head. A KV head takes the
      maximum of z-scores over its query heads, so a copy changes nothing: the heads that were measured decide. Zeros would
      not do: they hold every key below the average up to the average.
    - A KV head without any measured query head gets zeros. All its keys then score the same, and where it decides for itself
      (mode ``per_layer_head``) it keeps the newest. Where heads decide together, it gives every key an average vote.
    - Layers without full attention are dropped.

    Args:
        foreign: what a file holds.
        model: what the GGUF tells.
        identity: of the GGUF; the result fits no other model.
        ignore_rope_theta: accept another RoPE base. Statistics are of queries before RoPE, and do not depend on it if the
            program that measured them used the model's own.

    Raises:
        StatsError: the file and the model contradict each other; the message names both sides.
    """
    caches = _caches(model)
    check_fits(foreign, model, ignore_rope_theta=ignore_rope_theta)
    notes = list(notes_on(foreign, model, ignore_rope_theta=ignore_rope_theta))
    layers, n_heads, n_copied, n_kv, n_blind = [], 0, 0, 0, 0
    for cache in caches:
        layer = cache.empty(model.n_ctx_train)
        copied, blind = _fill(layer, cache, foreign)
        layer.to_native()  # checks the numbers
        layers.append(layer)
        n_heads, n_copied = n_heads + layer.n_head, n_copied + copied
        n_kv, n_blind = n_kv + layer.n_head_kv, n_blind + blind
    if n_blind == n_kv:
        raise StatsError("the file has statistics of no layer that has full attention in the model")
    if n_copied:
        notes.append(
            f"{n_copied} of {n_heads} query heads are not in the file; each takes the statistics of a head that reads the same KV "
            "head, so that those in the file decide"
        )
    if n_blind:
        notes.append(
            f"of {n_blind} of {n_kv} KV heads the file has no query head; they have no statistics and keep their newest keys"
        )
    return Imported(TriAttentionStats(tuple(layers), identity, n_tokens=0, corpus_sha256=""), tuple(notes))


def _fill(layer: LayerStats, cache: _Cache, foreign: ForeignStats) -> tuple[int, int]:
    """Put the file's numbers into `layer`; return how many query heads are copies, and how many KV heads have nothing."""
    own = _own_pairs(layer)
    group = layer.n_head // layer.n_head_kv
    heads = cache.heads
    present = [i for i, head in enumerate(heads) if head in foreign.heads]
    for i in present:
        bands = foreign.heads[heads[i]]
        pairs = cache.file_pairs(layer, len(bands.real))
        layer.centre[i, pairs[:, 0]] = bands.real
        layer.centre[i, pairs[:, 1]] = bands.imag
        layer.magnitude[i] = _repaired(bands.magnitude[None], layer.centre[i : i + 1], pairs, own)[0]
    measured = set(present)
    n_copied = n_blind = 0
    for kv in range(layer.n_head_kv):
        members = range(kv * group, (kv + 1) * group)
        source = next((i for i in members if i in measured), None)
        if source is None:
            n_blind += 1
            continue
        for i in members:
            if i not in measured:
                layer.centre[i], layer.magnitude[i] = layer.centre[source], layer.magnitude[source]
                n_copied += 1
    return n_copied, n_blind


# --- to others ---


def _heads_of(stats: TriAttentionStats, model: ModelInfo) -> Iterator[tuple[_Cache, LayerStats, int]]:
    """Yield each layer with its number of bands in a foreign file: of what RoPE turns, or of the whole head where it turns nothing."""
    caches = {cache.info.index: cache for cache in _caches(model)}
    if set(caches) != {layer.layer for layer in stats.layers}:
        raise StatsError(
            f"the statistics have {len(stats.layers)} layers, the model has {len(caches)} layers with full attention"
        )
    for layer in stats.layers:
        cache = caches[layer.layer]
        if (layer.n_head, layer.n_head_kv, layer.head_dim) != (
            len(cache.heads),
            cache.info.n_head_kv,
            cache.info.head_dim_k,
        ):
            raise StatsError(
                f"the statistics have {layer.n_head} query heads over {layer.n_head_kv} KV heads of {layer.head_dim} in layer "
                f"{layer.layer}, the model {len(cache.heads)} over {cache.info.n_head_kv} of {cache.info.head_dim_k}"
            )
        yield cache, layer, (layer.n_rot or layer.head_dim) // 2


def _taken(cache: _Cache, layer: LayerStats, n_bands: int) -> Iterator[tuple[tuple[int, int], HeadBands]]:
    pairs = cache.file_pairs(layer, n_bands)
    magnitude = _repaired(layer.magnitude, layer.centre, _own_pairs(layer), pairs)
    for i, head in enumerate(cache.heads):
        bands = HeadBands(layer.centre[i, pairs[:, 0]], layer.centre[i, pairs[:, 1]], magnitude[i])
        if not bands.is_empty:
            yield head, bands


def _lost(chosen: list[tuple[_Cache, LayerStats, int]]) -> Iterator[str]:
    skipped = [str(layer.layer) for _, layer, n_bands in chosen if not n_bands]
    if skipped:
        yield f"the format has no room for layers without RoPE, which are left out ({', '.join(skipped)})"
    partial = [layer for _, layer, n_bands in chosen if n_bands and 2 * n_bands < layer.head_dim]
    if partial:
        yield (
            f"the format has no room for dimensions that RoPE does not turn ({partial[0].head_dim - partial[0].n_rot} of "
            f"{partial[0].head_dim} in layer {partial[0].layer}), which are left out"
        )


def _only(name: str, values: set[int] | set[float], format_name: str) -> int | float:
    if len(values) != 1:
        raise StatsError(
            f"{format_name} has one {name} for all layers, but the layers of this model have {sorted(values)}; use fork-v3"
        )
    return next(iter(values))


def export_uniform(stats: TriAttentionStats, model: ModelInfo, format_name: str, *, strict: bool) -> Exported:
    """Convert our statistics for a format that has one record for all layers (the forks' version 1, TRIA, ``.pt``).

    Args:
        stats: of `model`.
        model: what the GGUF tells.
        format_name: for messages.
        strict: head dimension, bands and RoPE base must be those of all layers; else those that differ are left out of the
            header (``.pt``).

    Raises:
        StatsError: statistics and model contradict each other, or the format cannot hold them.
    """
    chosen = list(_heads_of(stats, model))
    rotated = {n_bands for _, layer, n_bands in chosen if layer.n_rot}
    if strict and rotated:
        n_uniform = int(_only("number of bands", rotated, format_name))
        chosen = [(cache, layer, n if n == n_uniform else 0) for cache, layer, n in chosen]
    readers = [reader for cache, _, _ in chosen for reader in cache.readers]
    bases = {layer.rope.freq_base for layer in readers if layer.rope is not None} or {10000.0}
    dims = {layer.head_dim for _, layer, _ in chosen}
    interleaved = {layer.interleaved for _, layer, _ in chosen if layer.n_rot}
    notes = list(_lost(chosen))
    if any(layer.rot_begin for _, layer, _ in chosen):
        notes.append(
            "the format does not say that rotated dimensions are not the first of a head, other programs will take them for it"
        )
    if any(_has_other_frequencies(cache, layer) for cache, layer, _ in chosen):
        notes.append("the model scales its RoPE frequencies, which the format does not say; fork-v3 does")
    foreign = ForeignStats(
        format_name,
        {head: bands for cache, layer, n in chosen if n for head, bands in _taken(cache, layer, n)},
        head_dim=int(_only("head dimension", dims, format_name)) if strict or len(dims) == 1 else None,
        n_layer=model.n_layer,
        n_head=max(layer.n_head for layer in readers),
        n_head_kv=max(layer.n_head_kv for layer in readers),
        rope_theta=_only("RoPE base", bases, format_name) if strict or len(bases) == 1 else None,
        interleaved=True in interleaved,
        model_name=stats.model.name,
    )
    return Exported(foreign, tuple(notes))


def _has_other_frequencies(cache: _Cache, layer: LayerStats) -> bool:
    rope = cache.info.rope
    if rope is None or not layer.n_rot:
        return False
    begin, end = layer.rot_begin // 2, (layer.rot_begin + layer.n_rot) // 2
    plain = rope.freq_base ** (-np.arange(end - begin) / (end - begin))
    return not np.allclose(layer.omega[begin:end], plain, rtol=1e-3) or layer.scale != 1.0


def export_per_layer(stats: TriAttentionStats, model: ModelInfo) -> Exported:
    """Convert our statistics for version 3 of the forks' format, which has a record for each layer.

    A layer without RoPE is written as bands over the whole head that turn by 0.

    Raises:
        StatsError: statistics and model contradict each other.
    """
    chosen = list(_heads_of(stats, model))
    by_reader = {reader.index: item for item in chosen for reader in item[0].readers}
    layers = tuple(_record(layer, by_reader.get(layer.index)) for layer in model.layers[: model.n_layer])
    with_bands = [layers[index] for index in sorted(by_reader)]
    foreign = ForeignStats(
        "llama.cpp fork version 3",
        {head: bands for cache, layer, n in chosen for head, bands in _taken(cache, layer, n)},
        head_dim=with_bands[0].head_dim,
        n_layer=model.n_layer,
        n_head=max(layer.n_head for layer in with_bands),
        n_head_kv=max(layer.n_head_kv for layer in with_bands),
        rope_theta=with_bands[0].rope_theta,
        interleaved=any(layer.interleaved for layer in with_bands),
        model_name=stats.model.name,
        layers=layers,
    )
    return Exported(foreign, tuple(_lost(chosen)))


def _record(info: LayerInfo, item: tuple[_Cache, LayerStats, int] | None) -> ForeignLayer:
    rope = info.rope
    omega = scale_sq = None
    n_bands = begin = 0
    interleaved = False
    if item is not None:
        cache, layer, n_bands = item
        begin = layer.rot_begin
        omega = layer.omega[begin // 2 :][:n_bands].astype(np.float32)
        scale_sq = np.full(n_bands, layer.scale**2, np.float32)
        interleaved = layer.interleaved if layer.n_rot else cache.whole_head_is_interleaved
    return ForeignLayer(
        head_dim=info.head_dim_k,
        rope_dim=2 * n_bands,
        rope_offset=begin,
        n_head=info.n_head,
        n_head_kv=info.n_head_kv,
        kv_source=info.owner if info.kind is LayerKind.SHARED else None,
        interleaved=interleaved,
        n_ctx_orig=rope.n_ctx_orig if rope else 0,
        rope_theta=rope.freq_base if rope else 10000.0,
        freq_scale=rope.freq_scale if rope else 1.0,
        ext_factor=rope.ext_factor if rope else 0.0,
        attn_factor=rope.attn_factor if rope else 1.0,
        beta_fast=rope.beta_fast if rope else 32.0,
        beta_slow=rope.beta_slow if rope else 1.0,
        n_bands=n_bands,
        omega=omega,
        freq_scale_sq=scale_sq,
    )
