"""Our statistics to those of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pytriattn.conversion.bands import CacheOwner, cache_owners, own_pairs, regroup_magnitudes
from pytriattn.conversion.formats.foreign import ForeignLayer, ForeignStats, HeadBands
from pytriattn.errors import StatsError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["Exported", "export_per_layer", "export_uniform"]


class Exported(NamedTuple):
    """What `export_uniform` and `export_per_layer` return.

    Attributes:
        foreign: the statistics, for a writer of `pytriattn.conversion.formats`.
        notes: sentences about what the format cannot hold.
    """

    foreign: ForeignStats
    notes: tuple[str, ...]


def _layers_with_bands(stats: TriAttentionStats, model: ModelInfo) -> Iterator[tuple[CacheOwner, LayerStats, int]]:
    """Yield each layer with its number of bands in a foreign file.

    These are the bands that RoPE rotates, or those of the whole head if it rotates none.
    """
    caches = {cache.info.index: cache for cache in cache_owners(model)}
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
                f"the statistics have {layer.n_head} query heads over {layer.n_head_kv} KV heads of {layer.head_dim} "
                f"in layer {layer.layer}, the model {len(cache.heads)} over {cache.info.n_head_kv} of "
                f"{cache.info.head_dim_k}"
            )
        yield cache, layer, (layer.n_rot or layer.head_dim) // 2


def _bands_of_heads(cache: CacheOwner, layer: LayerStats, n_bands: int) -> Iterator[tuple[tuple[int, int], HeadBands]]:
    pairs = cache.file_pairs(layer, n_bands)
    magnitude = regroup_magnitudes(layer.magnitude, layer.centre, own_pairs(layer), pairs)
    for i, head in enumerate(cache.heads):
        bands = HeadBands(layer.centre[i, pairs[:, 0]], layer.centre[i, pairs[:, 1]], magnitude[i])
        if not bands.is_empty:
            yield head, bands


def _describe_losses(chosen: list[tuple[CacheOwner, LayerStats, int]]) -> Iterator[str]:
    skipped = [str(layer.layer) for _, layer, n_bands in chosen if not n_bands]
    if skipped:
        yield f"the format has no room for layers without RoPE, which are left out ({', '.join(skipped)})"
    partial = [layer for _, layer, n_bands in chosen if n_bands and 2 * n_bands < layer.head_dim]
    if partial:
        yield (
            f"the format has no room for dimensions that RoPE does not turn ({partial[0].head_dim - partial[0].n_rot} "
            f"of {partial[0].head_dim} in layer {partial[0].layer}), which are left out"
        )


def _single_value(name: str, values: set[int] | set[float], format_name: str) -> int | float:
    if len(values) != 1:
        raise StatsError(
            f"{format_name} has one {name} for all layers, but the layers of this model have {sorted(values)}; use "
            "fork-v3"
        )
    return next(iter(values))


def export_uniform(stats: TriAttentionStats, model: ModelInfo, format_name: str, *, strict: bool) -> Exported:
    """Convert our statistics for a format that has one record for all layers (the forks' version 1, TRIA, ``.pt``).

    Args:
        stats: the statistics of `model`.
        model: the facts that the GGUF file tells.
        format_name: the name of the format, for messages.
        strict: head dimension, bands and RoPE base must be those of all layers; else those that differ are left out of
            the header (``.pt``).

    Raises:
        StatsError: statistics and model contradict each other, or the format cannot hold them.
    """
    chosen = list(_layers_with_bands(stats, model))
    rotated = {n_bands for _, layer, n_bands in chosen if layer.n_rot}
    if strict and rotated:
        n_uniform = int(_single_value("number of bands", rotated, format_name))
        chosen = [(cache, layer, n if n == n_uniform else 0) for cache, layer, n in chosen]
    readers = [reader for cache, _, _ in chosen for reader in cache.readers]
    bases = {layer.rope.freq_base for layer in readers if layer.rope is not None} or {10000.0}
    dims = {layer.head_dim for _, layer, _ in chosen}
    interleaved = {layer.interleaved for _, layer, _ in chosen if layer.n_rot}
    notes = list(_describe_losses(chosen))
    if any(layer.rot_begin for _, layer, _ in chosen):
        notes.append(
            "the format does not say that rotated dimensions are not the first of a head, other programs will take "
            "them for it"
        )
    if any(_has_other_frequencies(cache, layer) for cache, layer, _ in chosen):
        notes.append("the model scales its RoPE frequencies, which the format does not say; fork-v3 does")
    foreign = ForeignStats(
        format_name,
        {head: bands for cache, layer, n in chosen if n for head, bands in _bands_of_heads(cache, layer, n)},
        head_dim=int(_single_value("head dimension", dims, format_name)) if strict or len(dims) == 1 else None,
        n_layer=model.n_layer,
        n_head=max(layer.n_head for layer in readers),
        n_head_kv=max(layer.n_head_kv for layer in readers),
        rope_theta=_single_value("RoPE base", bases, format_name) if strict or len(bases) == 1 else None,
        interleaved=True in interleaved,
        model_name=stats.model.name,
    )
    return Exported(foreign, tuple(notes))


def _has_other_frequencies(cache: CacheOwner, layer: LayerStats) -> bool:
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
    chosen = list(_layers_with_bands(stats, model))
    by_reader = {reader.index: item for item in chosen for reader in item[0].readers}
    layers = tuple(_record(layer, by_reader.get(layer.index)) for layer in model.layers[: model.n_layer])
    with_bands = [layers[index] for index in sorted(by_reader)]
    foreign = ForeignStats(
        "llama.cpp fork version 3",
        {head: bands for cache, layer, n in chosen for head, bands in _bands_of_heads(cache, layer, n)},
        head_dim=with_bands[0].head_dim,
        n_layer=model.n_layer,
        n_head=max(layer.n_head for layer in with_bands),
        n_head_kv=max(layer.n_head_kv for layer in with_bands),
        rope_theta=with_bands[0].rope_theta,
        interleaved=any(layer.interleaved for layer in with_bands),
        model_name=stats.model.name,
        layers=layers,
    )
    return Exported(foreign, tuple(_describe_losses(chosen)))


def _record(info: LayerInfo, item: tuple[CacheOwner, LayerStats, int] | None) -> ForeignLayer:
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
