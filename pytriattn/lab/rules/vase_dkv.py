"""VaSE-DKV: lengths of keys and values after a random projection, drawn anew at each eviction (arXiv 2606.03928)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytriattn.lab.rules.base import Given, LayerView, View

__all__ = ["vase_dkv"]

_N_DIRECTIONS = 20


def vase_dkv(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Return |kG|^2 |vG'|^2 with Gaussian G, G' of twenty columns for each head."""
    rng = given.rng(view, layer)

    def sizes(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        directions = rng.standard_normal((layer.n_head_kv, rows.shape[-1], _N_DIRECTIONS), dtype=np.float32)
        return np.asarray(((rows @ directions) ** 2).sum(axis=-1) / _N_DIRECTIONS)

    return sizes(layer.keys()) * sizes(layer.values())
