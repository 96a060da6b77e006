"""One layer of a model: its kind, its cache and its RoPE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

__all__ = ["Fact", "LayerInfo", "LayerKind", "RopeInfo"]


class LayerKind(str, Enum):
    """The part of the past that a layer keeps."""

    FULL = "full"
    """Attention over all positions, with a KV cache of its own. A budget evicts from it."""
    SLIDING = "sliding"
    """Attention over a window, with a KV cache of its own."""
    SHARED = "shared"
    """Attention over the KV cache of an earlier layer."""
    RECURRENT = "recurrent"
    """A recurrent or convolution state alone."""
    NONE = "none"
    """Nothing: feed-forward alone."""
    MTP = "mtp"
    """Predicts several tokens at once; decoding does not use it."""


@dataclass(frozen=True)
class Fact:
    """One fact about a model.

    Attributes:
        value: the fact.
        source: ``key NAME`` or ``tensor NAME`` of the file; ``rule of ARCHITECTURE (file in llama.cpp)`` where metadata
            cannot tell; ``default of llama.cpp (file)`` where they may, but do not.
    """

    value: object
    source: str


@dataclass(frozen=True)
class RopeInfo:
    """What RoPE does to a layer's queries and keys.

    Attributes:
        mode: ``norm`` (neighbouring dimensions are a pair), ``neox`` (halves), ``mrope`` or ``imrope`` (halves; several
            positions).
        head_dim: dimensions of a head.
        rot_begin: the index of the first dimension that is rotated.
        n_rot: how many dimensions are rotated.
        freq_base: base of the frequencies.
        freq_scale: factor on positions (1/4 for a context stretched by 4).
        scaling: ``none``, ``linear``, ``yarn`` or ``longrope``.
        ext_factor: YaRN's mix of extrapolation, from 0 to 1; 0 without YaRN.
        attn_factor: factor on rotated dimensions before YaRN's own is applied.
        beta_fast: YaRN's bound for fast bands.
        beta_slow: YaRN's bound for slow bands.
        n_ctx_orig: how many positions the model had before it was stretched, in tokens.
        sections: the sections of M-RoPE; empty for other kinds.
        factors: divisors of the frequencies, float32 [n_rot / 2], or None. LongRoPE: those for contexts up to
            ``n_ctx_orig``.
        long_factors: LongRoPE's divisors for longer contexts, float32 [n_rot / 2], or None.
    """

    mode: str
    head_dim: int
    rot_begin: int
    n_rot: int
    freq_base: float
    freq_scale: float
    scaling: str
    ext_factor: float
    attn_factor: float
    beta_fast: float
    beta_slow: float
    n_ctx_orig: int
    sections: tuple[int, ...] = ()
    factors: npt.NDArray[np.float32] | None = None
    long_factors: npt.NDArray[np.float32] | None = None

    @property
    def interleaved(self) -> bool:
        """Tell whether pairs are neighbours."""
        return self.mode == "norm"

    def omega(self, n_ctx: int) -> npt.NDArray[np.float64]:
        """Return radians per position, float64 [head_dim / 2], bands in the order of dimensions; 0 if not rotated.

        `n_ctx` chooses between LongRoPE's two sets.
        """
        omega = np.zeros(self.head_dim // 2)
        if self.n_rot == 0:
            return omega
        band = np.arange(self.n_rot // 2)
        free = self.freq_base ** (-2.0 * band / self.n_rot)
        # llama.cpp rounds a context up to whole pieces of 256 before it chooses
        is_long = self.long_factors is not None and -(-n_ctx // 256) * 256 > self.n_ctx_orig
        factors = self.long_factors if is_long else self.factors
        if factors is not None:
            free = free / factors.astype(np.float64)
        turned = free * self.freq_scale
        if self.ext_factor != 0:
            # YaRN: bands that turn often within the original context keep their speed, slow ones are stretched
            low, high = max(0.0, math.floor(self._band(self.beta_fast))), math.ceil(self._band(self.beta_slow))
            ramp = np.clip((band - low) / max(0.001, min(self.n_rot - 1, high) - low), 0.0, 1.0)
            kept = (1 - ramp) * self.ext_factor
            turned = turned * (1 - kept) + free * kept
        if self.sections:
            turned = np.where(self._is_fourth(band), 0.0, turned)
        first = self.rot_begin // 2
        # factors of 1e30 mean "not rotated"
        omega[first : first + self.n_rot // 2] = np.where(turned < 1e-20, 0.0, turned)
        return omega

    def _band(self, turns: float) -> float:
        """Return which band turns so often within the original context."""
        return self.n_rot * math.log(self.n_ctx_orig / (turns * 2 * math.pi)) / (2 * math.log(self.freq_base))

    def _is_fourth(self, band: npt.NDArray[np.int_]) -> npt.NDArray[np.bool_]:
        """Tell which bands turn by the fourth position, which is always 0 for text (the other three are equal)."""
        sector = band % sum(self.sections)
        if self.mode == "mrope":
            return sector >= sum(self.sections[:3])
        ends = np.array([3 * section for section in self.sections[:3]])
        fourth: npt.NDArray[np.bool_] = sector >= ends[sector % 3]
        return fourth

    @property
    def scale(self) -> float:
        """Return the factor on rotated dimensions, YaRN's own included."""
        if self.ext_factor == 0:
            return self.attn_factor
        return self.attn_factor * (1 + 0.1 * math.log(1 / self.freq_scale))


@dataclass(frozen=True)
class LayerInfo:
    """One layer.

    Attributes:
        index: the layer's number in the file.
        kind: the part of the past that it keeps.
        owner: the layer whose KV cache it reads: itself, or an earlier one; -1 without attention.
        n_head: query heads; 0 without attention.
        n_head_kv: KV heads of the cache that it reads.
        head_dim_k: dimensions of a cached key.
        head_dim_v: dimensions of a cached value; 0 where values are a part of the keys (latent attention).
        k_width: values of K that llama.cpp keeps for a token in this layer's own cache; 0 without one.
        v_width: the same of V.
        state_size: float32 values of recurrent state for a sequence; 0 without one.
        rope: what RoPE does; None without RoPE.
        has_cells: llama.cpp's cache of this layer's kind has a place for it, be it of no width.
        index_k_width: values of a token's key for the indexer of sparse attention, in a cache of its own; 0 without
            one.
        index_v_width: the same of V, where llama.cpp keeps one that nothing uses.
    """

    index: int
    kind: LayerKind
    owner: int
    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    k_width: int
    v_width: int
    state_size: int
    rope: RopeInfo | None
    has_cells: bool = False
    index_k_width: int = 0
    index_v_width: int = 0
