"""The numbers that plots of statistics draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytriattn.plotting.kept import PlotError
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["Head", "expected_logits", "typical_heads"]

Head = tuple[int, int]
"""(layer, query head)"""


def expected_logits(
    layer: LayerStats, head: int, distances: npt.ArrayLike, key: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Return the logit of a key at each distance if the query is the head's centre, without attention's scale.

    This is one term of S_trig: the sum over bands f of |mu_f| |k_f| cos(omega_f distance + arg mu_f - arg k_f), times
    the square of RoPE's scale for rotated bands. Without a `key`, the key is the centre at length 1: of all keys of
    that length it gets the largest logit at distance 0, |mu|. The curve then shows how the logit of the key that the
    head prefers falls with distance. The slower the head's strong bands rotate, the more slowly it falls.

    Args:
        layer: statistics of the layer.
        head: query head.
        distances: tokens from the key to the query.
        key: [head_dim], before RoPE.

    Returns:
        float64, of the shape of `distances`.

    Raises:
        PlotError: there is no such head, or the key has another size.
    """
    if not 0 <= head < layer.n_head:
        raise PlotError(f"layer {layer.layer} has {layer.n_head} query heads, not a head {head}; count from 0")
    centre = layer.centre[head].astype(np.float64)
    length = float(np.linalg.norm(centre))
    vector = centre / length if key is None and length > 0 else np.asarray(centre if key is None else key, np.float64)
    if vector.shape != (layer.head_dim,):
        raise PlotError(f"key has the shape {list(vector.shape)}, it must be [{layer.head_dim}]")
    first, second = layer.to_native().band_dims.T
    products = (centre[first] + 1j * centre[second]) * (vector[first] - 1j * vector[second])
    is_rotated = (first >= layer.rot_begin) & (first < layer.rot_begin + layer.n_rot)
    products *= np.where(is_rotated, layer.scale**2, 1.0)
    angles = np.multiply.outer(np.asarray(distances, dtype=np.float64), layer.omega)
    logits: npt.NDArray[np.float64] = (np.exp(1j * angles) @ products).real
    return logits


def typical_heads(stats: TriAttentionStats) -> list[Head]:
    """Return the heads with the largest, the middle and the smallest mean concentration, at most three."""
    means = [
        (float(mean), layer, head)
        for layer, ratios in stats.concentration().items()
        for head, mean in enumerate(ratios.mean(axis=1))
    ]
    means.sort(reverse=True)
    chosen = {0: None, len(means) // 2: None, len(means) - 1: None}
    return [means[i][1:] for i in chosen]
