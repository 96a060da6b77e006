"""Fitting, for each KV head, how much attention a key can expect to what is known of it when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pytriattn.stats.layer_stats import LayerStats

__all__ = ["KeyFit", "KeyFitter"]

RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""To choose from by held-out keys: the fewer keys there are, the more a fit has to be held back."""
_HELD_OUT = 5  # each fifth key tests the fit of the others

Floats = npt.NDArray[np.float64]


@dataclass
class _Moments:
    """Sums over keys that a linear regression needs.

    Attributes:
        n: keys.
        xx: sum of x x^T, [n_features, n_features].
        xy: sum of x y, [n_features].
        y: sum of y.
        yy: sum of y^2.
    """

    n: int
    xx: Floats
    xy: Floats
    y: float
    yy: float

    @classmethod
    def of(cls, x: Floats, y: Floats) -> _Moments:
        return cls(len(y), x.T @ x, x.T @ y, float(y.sum()), float(y @ y))

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.n + other.n, self.xx + other.xx, self.xy + other.xy, self.y + other.y, self.yy + other.yy)

    def fit(self, ridge: float) -> Floats:
        """Return weights of the features by ridge regression on standardised features; feature 0 is 1."""
        mean = self.xx[0] / self.n
        deviation = np.sqrt(np.maximum(np.diag(self.xx) / self.n - mean**2, 0.0))
        used = deviation > 1e-9  # a constant feature tells nothing
        scale = deviation[used]
        covariance = (self.xx - self.n * np.outer(mean, mean))[np.ix_(used, used)] / np.outer(scale, scale)
        target = (self.xy - mean * self.y)[used] / scale
        weights = np.zeros(len(mean))
        weights[used] = np.linalg.solve(covariance + ridge * np.eye(len(scale)), target) / scale
        weights[0] = self.y / self.n - weights @ mean
        return weights

    def explained(self, weights: Floats) -> float:
        """Return R^2 of weights: the share of the variance of y that they explain."""
        residual = weights @ self.xx @ weights - 2 * weights @ self.xy + self.yy
        total = self.yy - self.y**2 / self.n
        return float(1.0 - residual / total) if total > 0 else 0.0


@dataclass(frozen=True, eq=False)
class KeyFit:
    """Weights for each KV head.

    Attributes:
        weights: (layer, KV head) -> float32 [n_features]; layers are counted as the calibrator counts them.
        r2: held-out R^2, the mean over heads.
        n_keys: keys that each head was fitted on.
    """

    weights: dict[tuple[int, int], npt.NDArray[np.float32]]
    r2: float
    n_keys: int

    def of_layer(self, layer: int) -> npt.NDArray[np.float32]:
        """Return the weights of one layer: float32 [n_head_kv, n_features]."""
        heads = sorted(head for of, head in self.weights if of == layer)
        return np.stack([self.weights[layer, head] for head in heads])

    def put_into(self, layers: Sequence[LayerStats]) -> list[LayerStats]:
        """Return the statistics of all layers with these weights."""
        return [replace(layer, fit=self.of_layer(index)) for index, layer in enumerate(layers)]


@dataclass
class KeyFitter:
    """Collects keys piece by piece; only sums are kept."""

    _heads: dict[tuple[int, int], tuple[_Moments, _Moments]] = field(default_factory=dict)

    def add(self, layer: int, head: int, features: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> None:
        """Take the keys of a head.

        Args:
            layer: as the calibrator counts them.
            head: KV head.
            features: [n_keys, n_features], the first of which is 1.
            targets: [n_keys], ln of attention.
        """
        x, y = features.astype(np.float64), targets.astype(np.float64)
        # blocks of keys, since neighbours are alike
        held_out = np.arange(len(y)) // 32 % _HELD_OUT == _HELD_OUT - 1
        parts = (_Moments.of(x[~held_out], y[~held_out]), _Moments.of(x[held_out], y[held_out]))
        known = self._heads.get((layer, head))
        self._heads[layer, head] = parts if known is None else (known[0] + parts[0], known[1] + parts[1])

    def fit(self) -> KeyFit:
        """Return the fit of all heads."""
        explained = {ridge: self._explained(ridge) for ridge in RIDGES}
        best = max(RIDGES, key=lambda ridge: explained[ridge])
        weights = {key: (train + test).fit(best).astype(np.float32) for key, (train, test) in self._heads.items()}
        n_keys = max((train.n + test.n for train, test in self._heads.values()), default=0)
        return KeyFit(weights, explained[best], n_keys)

    def _explained(self, ridge: float) -> float:
        """Return the held-out R^2, the mean over heads; 0 where no key was held out."""
        found = [test.explained(train.fit(ridge)) for train, test in self._heads.values() if test.n > 1]
        return float(np.mean(found)) if found else 0.0
