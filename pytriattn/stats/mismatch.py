"""Where statistics and a model file tell different things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytriattn._util.text import layer_ranges
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.memory import evictable_layers
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["differences"]

_MAX_DIFFERENCES = 6


def differences(info: ModelInfo, stats: TriAttentionStats) -> Iterator[str]:
    """Yield what statistics say otherwise than the model file, one phrase a fact; equal phrases of layers are
    joined.
    """
    if stats.model.architecture != info.architecture:
        yield f"architecture: statistics {stats.model.architecture}, model {info.architecture}"
    wanted = {layer.index: layer for layer in evictable_layers(info)}
    found = {layer.layer: layer for layer in stats.layers}
    if found.keys() != wanted.keys():
        yield f"layers with full attention: statistics {_layers(found)}, model {_layers(wanted)}"
    phrases: dict[str, list[int]] = {}
    for index in sorted(found.keys() & wanted.keys()):
        have, want = _facts_of_stats(found[index]), _facts_of_model(info, index)
        for name, value in have.items():
            if value != want.get(name, value):
                phrases.setdefault(f"{name}: statistics {value}, model {want[name]}", []).append(index)
    for number, (phrase, layers) in enumerate(phrases.items()):
        if number == _MAX_DIFFERENCES:
            yield f"and {len(phrases) - number} more"
            return
        yield f"{phrase} (layers {layer_ranges(layers)})"


def _layers(indices: Iterable[int]) -> str:
    numbers = sorted(indices)
    return f"{len(numbers)} ({layer_ranges(numbers)})" if numbers else "0"


def _facts_of_stats(layer: LayerStats) -> dict[str, object]:
    facts: dict[str, object] = {
        "query heads": layer.n_head,
        "KV heads": layer.n_head_kv,
        "head_dim": layer.head_dim,
        "n_rot": layer.n_rot,
    }
    if layer.n_rot:
        # without rotation there is nothing that pairs dimensions
        facts["first rotated dimension"] = layer.rot_begin
        facts["rotated pairs"] = "neighbours" if layer.interleaved else "halves"
    return facts


def _facts_of_model(info: ModelInfo, index: int) -> dict[str, object]:
    layer = next(layer for layer in info.layers if layer.index == index)
    facts: dict[str, object] = {
        # queries of layers that read another layer's cache count for the layer that owns it
        "query heads": sum(reader.n_head for reader in info.layers if reader.owner == index),
        "KV heads": layer.n_head_kv,
        "head_dim": layer.head_dim_k,
        "n_rot": 0 if layer.rope is None else layer.rope.n_rot,
    }
    if layer.rope is not None:
        facts["first rotated dimension"] = layer.rope.rot_begin
        facts["rotated pairs"] = "neighbours" if layer.rope.interleaved else "halves"
    return facts
