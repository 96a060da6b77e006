"""Made-up caches for rules to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn.lab.rules.base import Given
from pytriattn.stats.layer_stats import LayerStats

Floats = npt.NDArray[np.float32]


@dataclass
class MadeLayer:
    """One layer; `score_keys` and rules read it as they read the engine's."""

    layer: int
    n_head_kv: int
    made_keys: Floats
    made_values: Floats
    made_origins: npt.NDArray[np.int32]

    def keys(self) -> Floats:
        return self.made_keys

    def values(self) -> Floats:
        return self.made_values

    def origins(self) -> npt.NDArray[np.int32]:
        return self.made_origins


@dataclass
class MadeView:
    """A cache before an eviction."""

    position: int
    n_keep: int
    is_protected: npt.NDArray[np.bool_]
    layers: list[MadeLayer]
    seq: int = 0


def make_view(seed: int, n_keys: int, n_keep: int, n_sink: int = 4, window: int = 8, n_head_kv: int = 2) -> MadeView:
    rng = np.random.default_rng(seed)
    protected = np.zeros(n_keys, dtype=np.bool_)
    protected[:n_sink] = protected[n_keys - window :] = True
    layers = [
        MadeLayer(
            layer,
            n_head_kv,
            rng.standard_normal((n_head_kv, n_keys, 16), dtype=np.float32),
            rng.standard_normal((n_head_kv, n_keys, 12), dtype=np.float32),
            np.tile(np.arange(n_keys, dtype=np.int32), (n_head_kv, 1)),
        )
        for layer in (1, 3)
    ]
    return MadeView(n_keys + 100, n_keep, protected, layers)


def make_given(seed: int = 0, n_head_kv: int = 2) -> Given:
    rng = np.random.default_rng(seed)
    n_head = 2 * n_head_kv
    stats = {
        layer: LayerStats(
            layer,
            n_head,
            n_head_kv,
            0,
            16,
            False,
            1.0,
            10000.0 ** (-np.arange(8) / 8),
            rng.standard_normal((n_head, 16), dtype=np.float32),
            1 + rng.random((n_head, 8), dtype=np.float32) * 3,
        )
        for layer in (1, 3)
    }
    return Given(seed, stats)
