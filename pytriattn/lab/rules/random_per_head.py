"""A coin flip for each key, head and layer: the baseline to beat (Random Attention, arXiv 2609.03430)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytriattn.lab.rules.base import Given, LayerView, View

__all__ = ["random_per_head"]


def random_per_head(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Return scores drawn by chance, anew at each eviction, independently for each head."""
    return given.rng(view, layer).random((layer.n_head_kv, len(view.is_protected)))
