"""Statistics of other programs to ours and back: placing bands in a model's dimensions, and checking that they fit it.

A foreign file has bands: complex numbers, the f-th for the f-th rotated pair of a checkpoint's dimensions. They mean
the same wherever a GGUF keeps that pair, so values carry over and only their places change.
"""

from __future__ import annotations

from typing import NamedTuple

from pytriattn.conversion.bands import CacheOwner, cache_owners, own_pairs, regroup_magnitudes
from pytriattn.conversion.checks import check_fits, notes_on
from pytriattn.conversion.formats.foreign import ForeignStats
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.model_info.info import ModelInfo
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["Imported", "import_stats"]


class Imported(NamedTuple):
    """What `import_stats` returns.

    Attributes:
        stats: the statistics of every layer with full attention.
        notes: sentences that a user should read.
    """

    stats: TriAttentionStats
    notes: tuple[str, ...]


def import_stats(
    foreign: ForeignStats, model: ModelInfo, identity: ModelIdentity, *, ignore_rope_theta: bool = False
) -> Imported:
    """Convert foreign statistics to ours.

    - Dimensions that RoPE does not turn and the file does not cover get centre 0 and magnitude 0: they count neither in
      S_trig nor in S_norm, so keys are scored by the rotated part alone.
    - A query head that the file lacks gets the statistics of the first one that reads the same KV head. A KV head takes
      the maximum of z-scores over its query heads, so a copy changes nothing: the heads that were measured decide.
      Zeros would not do: they hold every key below the average up to the average.
    - A KV head without any measured query head gets zeros. All its keys then score the same, and where it decides for
      itself (mode ``per_layer_head``) it keeps the newest. Where heads decide together, it gives every key an average
      vote.
    - Layers without full attention are dropped.

    Args:
        foreign: the contents of a file.
        model: the facts that the GGUF file tells.
        identity: the identity of the GGUF file; the result fits no other model.
        ignore_rope_theta: accept another RoPE base. Statistics are of queries before RoPE, and do not depend on it if
            the program that measured them used the model's own.

    Raises:
        StatsError: the file and the model contradict each other; the message names both sides.
    """
    caches = cache_owners(model)
    check_fits(foreign, model, ignore_rope_theta=ignore_rope_theta)
    notes = list(notes_on(foreign, model, ignore_rope_theta=ignore_rope_theta))
    layers, n_heads, n_copied, n_kv, n_blind = [], 0, 0, 0, 0
    for cache in caches:
        layer = cache.empty(model.n_ctx_train)
        copied, blind = _fill_layer(layer, cache, foreign)
        layer.to_native()  # checks the numbers
        layers.append(layer)
        n_heads, n_copied = n_heads + layer.n_head, n_copied + copied
        n_kv, n_blind = n_kv + layer.n_head_kv, n_blind + blind
    if n_blind == n_kv:
        raise StatsError("the file has statistics of no layer that has full attention in the model")
    if n_copied:
        notes.append(
            f"{n_copied} of {n_heads} query heads are not in the file; each takes the statistics of a head that reads "
            "the same KV head, so that those in the file decide"
        )
    if n_blind:
        notes.append(
            f"of {n_blind} of {n_kv} KV heads the file has no query head; they have no statistics and keep their "
            "newest keys"
        )
    return Imported(TriAttentionStats(tuple(layers), identity, n_tokens=0, corpus_sha256=""), tuple(notes))


def _fill_layer(layer: LayerStats, cache: CacheOwner, foreign: ForeignStats) -> tuple[int, int]:
    """Put the file's numbers into `layer`; return how many query heads are copies and how many KV heads are empty."""
    own = own_pairs(layer)
    group = layer.n_head // layer.n_head_kv
    heads = cache.heads
    present = [i for i, head in enumerate(heads) if head in foreign.heads]
    for i in present:
        bands = foreign.heads[heads[i]]
        pairs = cache.file_pairs(layer, len(bands.real))
        layer.centre[i, pairs[:, 0]] = bands.real
        layer.centre[i, pairs[:, 1]] = bands.imag
        layer.magnitude[i] = regroup_magnitudes(bands.magnitude[None], layer.centre[i : i + 1], pairs, own)[0]
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
