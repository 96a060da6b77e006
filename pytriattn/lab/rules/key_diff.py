"""KeyDiff: keep the keys that are least like the others (arXiv 2504.15364)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytriattn.lab.rules.base import Given, LayerView, View

__all__ = ["key_diff"]


def key_diff(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Return minus the cosine of each key to the mean of all keys at length 1."""
    keys = layer.keys()
    keys = keys / np.maximum(np.linalg.norm(keys, axis=-1, keepdims=True), 1e-12)
    anchor = keys.mean(axis=1, keepdims=True)
    anchor = anchor / np.maximum(np.linalg.norm(anchor, axis=-1, keepdims=True), 1e-12)
    return np.asarray(-(keys * anchor).sum(axis=-1))
