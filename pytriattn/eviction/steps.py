"""Scoring and selecting keys on numpy arrays, through the C++ code that decoding uses. For tests and research."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.errors import BudgetError, StatsError
from pytriattn.stats.layer_stats import LayerStats

__all__ = [
    "DEFAULT_OFFSETS",
    "CompactionPlan",
    "group_scores",
    "plan_compaction",
    "score_keys",
    "select",
    "synthetic_query",
]

DEFAULT_OFFSETS: tuple[int, ...] = tuple(core.DEFAULT_OFFSETS)
"""Future distances that a score is averaged over: 1 to 65536 tokens, eight to an octave."""


class CompactionPlan(NamedTuple):
    """Which cells are given back, and which rows move.

    Attributes:
        freed: cells to free.
        moves: [n_layers][n_head_kv] lists of (from, to): copies of one head's row to a cell that stays.
    """

    freed: list[int]
    moves: list[list[list[tuple[int, int]]]]


def synthetic_query(
    layer: LayerStats, position: int, offsets: Sequence[int] = DEFAULT_OFFSETS
) -> npt.NDArray[np.float32]:
    """Return the query that stands for all future ones: the mean over offsets of RoPE(centre, position + offset).

    It is that of S_trig (arXiv 2604.04921), float32 [n_head, head_dim].
    """
    return core.synthetic_query(layer.to_native(), position, list(offsets))


def score_keys(
    layer: LayerStats,
    keys: npt.ArrayLike,
    position: int,
    offsets: Sequence[int] = DEFAULT_OFFSETS,
    *,
    use_trig: bool = True,
    use_norm: bool = True,
    use_unrotated: bool = True,
) -> npt.NDArray[np.float32]:
    """Score keys by the attention that they can expect from queries after `position` (arXiv 2604.04921).

    Args:
        layer: statistics of the layer's queries.
        keys: [n_keys, n_head_kv, head_dim], as a cache stores them: after RoPE.
        position: the position of the next query.
        offsets: future distances to average over.
        use_trig: include S_trig, the expected logit of the centre.
        use_norm: include S_norm, the part that does not depend on distance.
        use_unrotated: include bands that RoPE does not rotate.

    Returns:
        float32 [n_head, n_keys].

    Raises:
        StatsError: the shapes do not fit.
        BudgetError: both parts are left out, or there are no offsets.
    """
    array = np.asarray(keys, dtype=np.float32)
    return core.score_keys(layer.to_native(), array, position, list(offsets), use_trig, use_norm, use_unrotated)


def group_scores(
    scores: npt.ArrayLike, n_head_kv: int, protected: npt.ArrayLike | None = None
) -> npt.NDArray[np.float32]:
    """Z-score each query head over its unprotected keys, then take the maximum over the query heads of each KV head.

    Args:
        scores: [n_head, n_keys].
        n_head_kv: KV heads.
        protected: bool [n_keys]; None: none.

    Returns:
        float32 [n_head_kv, n_keys]; infinity for protected keys.

    Raises:
        StatsError: the shapes do not fit.
        DecodeError: a score is not finite.
    """
    array = np.asarray(scores, dtype=np.float32)
    free = _unprotected_mask(protected, array)
    found = core.group_scores(array[..., free], n_head_kv)
    result = np.full((len(found), array.shape[-1]), np.inf, dtype=np.float32)
    result[:, free] = found
    return result


def select(
    scores: npt.ArrayLike,
    n_head_kv: int,
    n_keep: int,
    mode: str = "per_layer_head",
    protected: npt.ArrayLike | None = None,
    seed: int = 0,
) -> npt.NDArray[np.bool_]:
    """Choose the keys that each layer and KV head keeps.

    Args:
        scores: [n_layers, n_head, n_keys].
        n_head_kv: KV heads in each layer.
        n_keep: keys to keep, protected ones included.
        mode: ``per_layer_head``, ``per_head``, ``per_layer``, ``global``, ``recent`` or ``random``.
        protected: bool [n_keys], always kept; None: none.
        seed: the seed of mode ``random``.

    Returns:
        bool [n_layers, n_head_kv, n_keys].

    Raises:
        BudgetError: the mode is unknown, or more keys are protected than may be kept.
        StatsError: the shapes do not fit.
        DecodeError: a score is not finite.
    """
    array = np.asarray(scores, dtype=np.float32)
    free = _unprotected_mask(protected, array)
    n_protected = int(np.count_nonzero(~free))
    if n_protected > n_keep:
        raise BudgetError(f"{n_protected} keys are protected, more than the {n_keep} to keep")
    chosen = core.select(mode, array[..., free], n_head_kv, n_keep - n_protected, seed)
    kept = np.ones((*chosen.shape[:2], array.shape[-1]), dtype=np.bool_)
    kept[..., free] = chosen
    return kept


def plan_compaction(kept: npt.ArrayLike, slots: npt.ArrayLike | None = None) -> CompactionPlan:
    """Plan how the kept rows come to lie in common cells.

    Args:
        kept: bool [n_layers, n_head_kv, n_keys]; every head keeps the same number.
        slots: the slot of each key's cell, uint32 [n_keys]; None: 0, 1, 2, ...

    Raises:
        StatsError: the shapes do not fit.
    """
    array = np.asarray(kept, dtype=np.bool_)
    cells = np.arange(array.shape[-1], dtype=np.uint32) if slots is None else np.asarray(slots, dtype=np.uint32)
    plan = core.plan_compaction(array, cells)
    moves = [[[(move.source, move.target) for move in head] for head in layer] for layer in plan.moves]
    return CompactionPlan(plan.freed, moves)


def _unprotected_mask(protected: npt.ArrayLike | None, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Mark the keys that are not protected."""
    if scores.ndim == 0:
        raise StatsError(f"scores is {scores}, it must be an array, one score for each head and key")
    n_keys = scores.shape[-1]
    marks = np.zeros(n_keys, dtype=np.bool_) if protected is None else np.asarray(protected, dtype=np.bool_)
    if marks.shape != (n_keys,):
        raise StatsError(f"protected has the shape {list(marks.shape)}, it must be [{n_keys}], one for each key")
    return ~marks
