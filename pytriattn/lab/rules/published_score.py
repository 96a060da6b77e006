"""The published score of TriAttention (arXiv 2604.04921) as a rule for each head: upside down, and without one of its
parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytriattn.eviction.steps import DEFAULT_OFFSETS, group_scores, score_keys
from pytriattn.lab.rules.base import Given, LayerView, View

__all__ = ["inverse", "no_norm", "no_trig", "one_offset", "published_score"]


def published_score(
    layer: LayerView,
    view: View,
    given: Given,
    offsets: Sequence[int] = DEFAULT_OFFSETS,
    *,
    use_trig: bool = True,
    use_norm: bool = True,
) -> npt.NDArray[np.floating]:
    """Return the score of mode ``per_layer_head``: z-scored per query head, the maximum over the heads of a group."""
    stats = given.stats[layer.layer]
    keys = layer.keys().transpose(1, 0, 2)
    scores = score_keys(stats, keys, view.position, offsets, use_trig=use_trig, use_norm=use_norm)
    return group_scores(scores, layer.n_head_kv, view.is_protected)


def inverse(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Keep the worst keys: the control that must lose everywhere."""
    return -published_score(layer, view, given)


def no_trig(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Score without the part that depends on distance."""
    return published_score(layer, view, given, use_trig=False)


def no_norm(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Score without the part that does not depend on distance."""
    return published_score(layer, view, given, use_norm=False)


def one_offset(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Score for the next token alone, not for a mean over future distances."""
    return published_score(layer, view, given, (1,))
