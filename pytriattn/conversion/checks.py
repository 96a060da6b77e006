"""Whether foreign statistics fit a model, and what is known to be wrong with such files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from pytriattn.conversion.formats.foreign import ForeignStats
from pytriattn.errors import StatsError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind

__all__ = ["check_fits", "notes_on"]

_RELATIVE_THETA = 1e-4  # bases are stored in single precision, in text, or rounded


def _readers(model: ModelInfo) -> list[LayerInfo]:
    """Return the layers whose queries read a full cache."""
    full = {layer.index for layer in model.layers_of(LayerKind.FULL)}
    return [layer for layer in model.layers if layer.owner in full and layer.kind in (LayerKind.FULL, LayerKind.SHARED)]


def check_fits(foreign: ForeignStats, model: ModelInfo, *, ignore_rope_theta: bool) -> None:
    """Check that a file can be of a model; the number of bands is left to the caller.

    Raises:
        StatsError: they contradict each other; the message names both sides.
    """
    readers = _readers(model)
    _check_layers(foreign, model, readers)
    if foreign.layers:
        _check_records(foreign, readers)
    else:
        _one_of("query heads in a layer", foreign.n_head or _inferred_heads(foreign), {r.n_head for r in readers})
        _one_of("KV heads in a layer", foreign.n_head_kv, {r.n_head_kv for r in readers})
        dims = {layer.head_dim_k for layer in readers}
        if not _counts_rotated_only(foreign, readers):
            _one_of("dimensions in a head", foreign.head_dim, dims)
    counts = {layer.index: layer.n_head for layer in model.layers}
    for layer, head in foreign.heads:
        if counts[layer] and head >= counts[layer]:
            raise StatsError(
                f"the file has a head {head} in layer {layer}, the model has {counts[layer]} query heads there"
            )
    if not ignore_rope_theta:
        _check_theta(foreign, readers)


def _one_of(name: str, found: int | None, expected: set[int]) -> None:
    if found is not None and found not in expected:
        raise StatsError(
            f"the file is of a model with {found} {name}, this one has {' or '.join(map(str, sorted(expected)))}"
        )


def _check_layers(foreign: ForeignStats, model: ModelInfo, readers: list[LayerInfo]) -> None:
    _one_of("layers", foreign.n_layer, {model.n_layer, len(model.layers)})
    last = max(layer for layer, _ in foreign.heads)
    if last >= len(model.layers):
        raise StatsError(f"the file is of a model with at least {last + 1} layers, this one has {len(model.layers)}")
    needed = max(layer.index for layer in readers)
    # without a count, a file that ends early is of a smaller model
    if foreign.n_layer is None and last < needed:
        raise StatsError(f"the last layer in the file is {last}, the model has full attention up to layer {needed}")


def _inferred_heads(foreign: ForeignStats) -> int | None:
    """Return the number of query heads if every layer of the file has the same ones, all from 0 on; else None."""
    per_layer: dict[int, set[int]] = {}
    for layer, head in foreign.heads:
        per_layer.setdefault(layer, set()).add(head)
    sets = list(per_layer.values())
    count = len(sets[0])
    return count if all(heads == set(range(count)) for heads in sets) else None


def _counts_rotated_only(foreign: ForeignStats, readers: list[LayerInfo]) -> bool:
    """Tell whether the file calls the rotated dimensions the head, as converters of partial-rotary models have done."""
    rotated = {layer.rope.n_rot for layer in readers if layer.rope is not None}
    return foreign.head_dim in rotated and foreign.band_counts == [(foreign.head_dim or 0) // 2]


def _check_records(foreign: ForeignStats, readers: list[LayerInfo]) -> None:
    sampled = {layer for layer, _ in foreign.heads}
    for layer in readers:
        record = foreign.layers[layer.index]
        have = (record.n_head, record.n_head_kv, record.head_dim)
        want = (layer.n_head, layer.n_head_kv, layer.head_dim_k)
        if have != want:
            raise StatsError(
                f"the file has {have[0]} query heads over {have[1]} KV heads of {have[2]} dimensions in layer "
                f"{layer.index}, the model {want[0]} over {want[1]} of {want[2]}"
            )
        rope = layer.rope
        if (
            layer.index in sampled
            and rope is not None
            and record.rope_dim == rope.n_rot
            and record.rope_offset != rope.rot_begin
        ):
            raise StatsError(
                f"in the file, rotated dimensions of layer {layer.index} begin at {record.rope_offset}, in the model "
                f"at {rope.rot_begin}"
            )


def _check_theta(foreign: ForeignStats, readers: list[LayerInfo]) -> None:
    bases = {layer.index: layer.rope.freq_base for layer in readers if layer.rope is not None and layer.rope.n_rot}
    for index, base in bases.items():
        found = foreign.layers[index].rope_theta if foreign.layers else foreign.rope_theta
        if found is not None and not math.isclose(found, base, rel_tol=_RELATIVE_THETA):
            raise StatsError(
                f"the file has RoPE base {found:g}, the model {base:g} (layer {index}); if the rest fits, the program "
                "that wrote it may have put a default there: --ignore-rope-theta converts it nevertheless"
            )


# --- what is known to be wrong with such files ---


def notes_on(foreign: ForeignStats, model: ModelInfo, *, ignore_rope_theta: bool) -> Iterator[str]:
    """Yield what a user should know about a file that fits, a sentence each."""
    readers = _readers(model)
    from_fork = "fork" in foreign.format
    if not model.is_exact:
        yield (
            f"the architecture {model.architecture} is unknown, so which layers there are and what RoPE does is a guess"
        )
    if ignore_rope_theta and foreign.rope_theta is not None:
        try:
            _check_theta(foreign, readers)
        except StatsError as error:
            yield f"ignored: {str(error).partition(';')[0]}"
    if model.architecture.startswith("qwen3") and not from_fork:
        yield (
            "the public calibrator skips the norm of Qwen3's queries: if the file comes from it, its statistics are of "
            "other queries than the model's, and calibrating anew is better"
        )
    if model.architecture.startswith("qwen35") and from_fork:
        yield (
            "a llama.cpp fork measures Qwen3.5's queries after RoPE: if the file comes from it, it is worthless; "
            "calibrate anew"
        )
    yield from _notes_on_dims(foreign, readers, from_fork)
    yield from _notes_on_pairs(foreign, readers, from_fork)
    if foreign.model_name and model.name and not _same_name(foreign.model_name, model.name):
        yield (
            f"the file says that it is of '{foreign.model_name[:80]}', the model calls itself '{model.name[:80]}'; "
            "some programs write one constant name, so this may mean nothing"
        )
    yield from _notes_on_dropped(foreign, model, readers)


def _notes_on_dims(foreign: ForeignStats, readers: list[LayerInfo], from_fork: bool) -> Iterator[str]:
    counts = set(foreign.band_counts)
    partial = [layer for layer in readers if layer.rope is not None and 0 < layer.rope.n_rot < layer.head_dim_k]
    if any(layer.head_dim_k // 2 in counts for layer in partial):
        yield (
            "the model rotates only a part of each head, but the file has bands for all of it"
            + (", as a fork's calibrator writes for every model" if from_fork else "")
            + ": its bands are taken for pairs over the whole head, and magnitudes are estimates; calibrating anew "
            "is better"
        )
    elif partial:
        layer = partial[0]
        rotated = layer.rope.n_rot if layer.rope else 0
        yield (
            f"the file covers the {rotated} rotated dimensions of {layer.head_dim_k}; the others count for nothing in "
            "the scores"
        )
    if any(layer.rope is None or not layer.rope.n_rot for layer in readers):
        yield "the model has layers without RoPE; what the file has for them is taken for pairs over the whole head"
    if (
        not foreign.layers
        and _counts_rotated_only(foreign, readers)
        and foreign.head_dim not in {r.head_dim_k for r in readers}
    ):
        yield f"the file calls the {foreign.head_dim} rotated dimensions the head"


def _notes_on_pairs(foreign: ForeignStats, readers: list[LayerInfo], from_fork: bool) -> Iterator[str]:
    interleaved = {layer.rope.interleaved for layer in readers if layer.rope is not None and layer.rope.n_rot}
    if from_fork and foreign.interleaved is not None and interleaved and interleaved != {foreign.interleaved}:
        names = {True: "neighbours", False: "halves"}
        yield (
            f"the file says that rotated pairs are {names[foreign.interleaved]}, in the model they are "
            f"{' and '.join(names[value] for value in sorted(interleaved))}: bands are carried over by their number, "
            "which is right only if they were measured in the model's own pairs (one fork's calibrator writes halves "
            "for every model)"
        )
    for layer in readers:
        omega = foreign.layers[layer.index].omega if foreign.layers else foreign.omega
        rope = layer.rope
        if omega is not None and rope is not None and 2 * len(omega) == rope.n_rot:
            own = rope.omega(max(rope.n_ctx_orig, 1))[rope.rot_begin // 2 :][: len(omega)]
            if not np.allclose(omega, own, rtol=1e-3, atol=1e-12):
                yield (
                    f"the file has other RoPE frequencies than the model (first in layer {layer.index}); those of the "
                    "model are used"
                )
                return


def _notes_on_dropped(foreign: ForeignStats, model: ModelInfo, readers: list[LayerInfo]) -> Iterator[str]:
    used = {layer.index for layer in readers}
    kinds = {layer.index: layer.kind.value for layer in model.layers}
    dropped = Counter(kinds[index] for index in {layer for layer, _ in foreign.heads} - used)
    if dropped:
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
        yield f"layers of the file that have no full attention in the model are dropped ({parts})"


def _same_name(a: str, b: str) -> bool:
    words = [re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower()) for name in (a, b)]
    return words[0] in words[1] or words[1] in words[0]
