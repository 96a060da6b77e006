"""Rules that go by the length of keys and values alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytriattn.lab.rules.base import Given, LayerView, View

__all__ = ["key_norm", "value_norm"]


def value_norm(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Keep the longest values: a large value changes what attention gives out (VaSE, arXiv 2606.03928)."""
    return np.asarray(np.linalg.norm(layer.values(), axis=-1))


def key_norm(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Keep the shortest keys: they tend to draw the most attention (KNorm, arXiv 2406.11430)."""
    return np.asarray(-np.linalg.norm(layer.keys(), axis=-1))
