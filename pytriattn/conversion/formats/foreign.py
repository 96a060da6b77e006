"""What statistics files of other programs hold, whatever their format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.errors import StatsError

__all__ = ["MAX_BANDS", "Floats", "ForeignLayer", "ForeignStats", "HeadBands", "check_head"]

Floats = npt.NDArray[np.float32]

MAX_BANDS = 4096
"""More bands than any head has; a larger count is damage."""


class HeadBands(NamedTuple):
    """One query head's statistics before RoPE; its bands are complex numbers, wherever their dimensions lie.

    Attributes:
        real: float32 [F], real part of the centre E[q_f].
        imag: float32 [F], imaginary part.
        magnitude: float32 [F], E|q_f|.
    """

    real: Floats
    imag: Floats
    magnitude: Floats

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was measured: formats without a list of heads fill absent ones with zeros."""
        return not any(np.any(part) for part in self)

    def concentration(self) -> Floats:
        """Return R = |E[q_f]| / E|q_f|, float32 [F]; 0 where the magnitude is."""
        centre = np.hypot(self.real, self.imag)
        return np.divide(centre, self.magnitude, out=np.zeros_like(centre), where=self.magnitude > 0)


@dataclass(frozen=True, eq=False)
class ForeignLayer:
    """A layer as version 3 of the forks' format records it.

    Attributes:
        head_dim: dimensions of a head.
        rope_dim: rotated ones.
        rope_offset: the first rotated one.
        n_head: query heads.
        n_head_kv: KV heads.
        kv_source: the layer whose KV cache is read, or None for its own.
        interleaved: whether rotated pairs are neighbours.
        n_ctx_orig: positions before the context was stretched.
        rope_theta: base of the frequencies.
        freq_scale: factor on positions.
        ext_factor: YaRN's mix of extrapolation.
        attn_factor: YaRN's factor on rotated dimensions.
        beta_fast: YaRN's bound for fast bands.
        beta_slow: YaRN's bound for slow bands.
        n_bands: F.
        omega: float32 [F], radians per position, or None where the base tells them.
        freq_scale_sq: float32 [F], square of the factor on a rotated band, or None.
    """

    head_dim: int
    rope_dim: int
    rope_offset: int
    n_head: int
    n_head_kv: int
    kv_source: int | None
    interleaved: bool
    n_ctx_orig: int
    rope_theta: float
    freq_scale: float
    ext_factor: float
    attn_factor: float
    beta_fast: float
    beta_slow: float
    n_bands: int
    omega: Floats | None
    freq_scale_sq: Floats | None


@dataclass(frozen=True, eq=False)
class ForeignStats:
    """The contents of a foreign file. None: the file does not say.

    Attributes:
        format: the name of the format with its version, for messages.
        heads: (layer, query head) -> its bands; absent heads are left out.
        head_dim: dimensions of a head, as the file has it.
        n_layer: layers of the model.
        n_head: query heads of a layer.
        n_head_kv: KV heads of a layer.
        rope_theta: base of the frequencies.
        interleaved: whether rotated pairs are neighbours.
        model_name: the model's name; it may be empty, or a constant of the program that wrote the file.
        omega: float32 [F], radians per position.
        freq_scale_sq: float32 [F], square of the factor on a rotated band.
        layers: one record for each layer (version 3 of the forks' format), else empty.
    """

    format: str
    heads: Mapping[tuple[int, int], HeadBands]
    head_dim: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_head_kv: int | None = None
    rope_theta: float | None = None
    interleaved: bool | None = None
    model_name: str = ""
    omega: Floats | None = None
    freq_scale_sq: Floats | None = None
    layers: tuple[ForeignLayer, ...] = field(default=())

    @property
    def band_counts(self) -> list[int]:
        """Return the different numbers of bands F of all heads, ascending."""
        return sorted({len(bands.real) for bands in self.heads.values()})


def check_head(layer: int, head: int, bands: HeadBands) -> HeadBands:
    """Return `bands` if they can be statistics.

    Raises:
        StatsError: a number is not finite, or a magnitude is negative.
    """
    if not all(np.isfinite(part).all() for part in bands) or (bands.magnitude < 0).any():
        raise StatsError(f"layer {layer}, head {head} holds a number that is not finite, or a negative magnitude")
    return bands
