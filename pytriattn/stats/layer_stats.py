"""Query statistics of one attention layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn._native import core

__all__ = ["LayerStats"]


@dataclass(frozen=True, eq=False)
class LayerStats:
    """The queries of one layer that owns a KV cache.

    A head's ``head_dim`` dimensions form ``head_dim // 2`` bands of two, counted in the order of dimensions; RoPE turns
    the ``n_rot // 2`` bands from dimension ``rot_begin`` on by ``omega * position`` and leaves the others alone (their
    ``omega`` is 0).

    Attributes:
        layer: index in the model.
        n_head: query heads that read this cache, grouped by KV head.
        n_head_kv: KV heads.
        rot_begin: the first dimension that RoPE rotates; 0 but for latent attention.
        n_rot: dimensions that RoPE rotates; 0 for a layer without RoPE.
        interleaved: whether bands are neighbours (2f, 2f+1), else halves (f, f + n_rot/2) of the rotated and of the
            other parts.
        scale: factor that RoPE multiplies rotated dimensions by (1 but for YaRN).
        omega: float64 [n_bands], radians per position.
        centre: float32 [n_head, head_dim], E[q] before RoPE.
        magnitude: float32 [n_head, n_bands], E|q_f| before RoPE.
        fit: float32 [n_head_kv, n_features], weights of a key's features (the C++ engine's key_features.h) whose sum is
            ln of the attention that it can expect; None: not fitted.
    """

    layer: int
    n_head: int
    n_head_kv: int
    rot_begin: int
    n_rot: int
    interleaved: bool
    scale: float
    omega: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float32]
    magnitude: npt.NDArray[np.float32]
    fit: npt.NDArray[np.float32] | None = None

    @property
    def head_dim(self) -> int:
        """Dimensions of a head."""
        return 2 * len(self.omega)

    def concentration(self) -> npt.NDArray[np.float32]:
        """Return the concentration R = \\|E[q_f]\\| / E\\|q_f\\|, float32 [n_head, n_bands] within [0, 1].

        1: all queries of a band point the same way (arXiv 2604.04921).
        """
        dims = self.to_native().band_dims
        centre = np.hypot(self.centre[:, dims[:, 0]], self.centre[:, dims[:, 1]])
        ratio = np.divide(centre, self.magnitude, out=np.zeros_like(centre), where=self.magnitude > 0)
        return np.minimum(ratio, 1.0, dtype=np.float32)

    def to_native(self) -> core.LayerStats:
        """Return the same facts as the C++ engine takes them.

        Raises:
            StatsError: the numbers contradict each other.
        """
        return core.LayerStats(
            layer=self.layer,
            n_head=self.n_head,
            n_head_kv=self.n_head_kv,
            head_dim=self.head_dim,
            rot_begin=self.rot_begin,
            n_rot=self.n_rot,
            interleaved=self.interleaved,
            scale=self.scale,
            omega=self.omega,
            centre=self.centre,
            magnitude=self.magnitude,
            fit=self.fit,
        )

    @classmethod
    def from_native(cls, native: core.LayerStats) -> LayerStats:
        """Return what the C++ calibrator measured."""
        return cls(
            layer=native.layer,
            n_head=native.n_head,
            n_head_kv=native.n_head_kv,
            rot_begin=native.rot_begin,
            n_rot=native.n_rot,
            interleaved=native.interleaved,
            scale=native.scale,
            omega=native.omega,
            centre=native.centre,
            magnitude=native.magnitude,
            fit=native.fit,
        )
