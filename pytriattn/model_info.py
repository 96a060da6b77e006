"""What a GGUF file tells about its model, without loading it: layers, RoPE, and the memory of a KV cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

__all__ = ["Fact", "KVBytes", "LayerInfo", "LayerKind", "ModelInfo", "RopeInfo"]


class LayerKind(str, Enum):
    """What a layer keeps of the past."""

    FULL = "full"
    """Attention over all positions, with a KV cache of its own: what a budget evicts from."""
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
    """One thing known of a model.

    Attributes:
        value: the thing.
        source: ``key NAME`` or ``tensor NAME`` of the file; ``rule of ARCHITECTURE (file in llama.cpp)`` where metadata cannot
            tell; ``default of llama.cpp (file)`` where they may, but do not.
    """

    value: object
    source: str


@dataclass(frozen=True)
class RopeInfo:
    """What RoPE does to a layer's queries and keys.

    Attributes:
        mode: ``norm`` (neighbouring dimensions are a pair), ``neox`` (halves), ``mrope`` or ``imrope`` (halves; several positions).
        head_dim: dimensions of a head.
        rot_begin: the first rotated one.
        n_rot: rotated ones.
        freq_base: base of the frequencies.
        freq_scale: factor on positions (1/4 for a context stretched by 4).
        scaling: ``none``, ``linear``, ``yarn`` or ``longrope``.
        ext_factor: YaRN's mix of extrapolation, 0 without YaRN.
        attn_factor: factor on rotated dimensions before YaRN's own is applied.
        beta_fast: YaRN's bound for fast bands.
        beta_slow: YaRN's bound for slow bands.
        n_ctx_orig: positions before stretching.
        sections: of M-RoPE; else empty.
        factors: divisors of the frequencies, float32 [n_rot / 2], or None. LongRoPE: those for contexts up to ``n_ctx_orig``.
        long_factors: LongRoPE's divisors for longer contexts, or None.
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
        """Return radians per position, float64 [head_dim / 2], bands in the order of dimensions; 0 where nothing rotates.

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
        index: in the file.
        kind: what it keeps of the past.
        owner: the layer whose KV cache it reads: itself, or an earlier one; -1 without attention.
        n_head: query heads; 0 without attention.
        n_head_kv: KV heads of the cache that it reads.
        head_dim_k: dimensions of a cached key.
        head_dim_v: dimensions of a cached value; 0 where values are a part of the keys (latent attention).
        k_width: values of K that llama.cpp keeps for a token in this layer's own cache; 0 without one.
        v_width: the same of V.
        state_size: float32 values of recurrent state for a sequence; 0 without one.
        rope: None without RoPE.
        has_cells: llama.cpp's cache of this layer's kind has a place for it, be it of no width.
        index_k_width: values of a token's key for the indexer of sparse attention, in a cache of its own; 0 without one.
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


@dataclass(frozen=True)
class KVBytes:
    """Bytes of the caches of a context, as llama.cpp allocates them.

    Attributes:
        full: K and V of layers with full attention.
        sliding: K and V of sliding-window layers.
        recurrent: recurrent states.
        cells_full: cells of layers with full attention, for each sequence.
        cells_sliding: cells of sliding-window layers, for each sequence.
    """

    full: int
    sliding: int
    recurrent: int
    cells_full: int
    cells_sliding: int

    @property
    def total(self) -> int:
        """Return all bytes together."""
        return self.full + self.sliding + self.recurrent


@dataclass(frozen=True)
class ModelInfo:
    """What a GGUF file tells.

    Attributes:
        path: the file (the first one of a split model), or its URL.
        name: ``general.name``, or an empty string.
        architecture: ``general.architecture``.
        file_bytes: of all parts together.
        n_layer: layers that decoding uses.
        n_embd: width of the residual stream.
        n_vocab: tokens.
        n_ctx_train: positions that the model was trained for.
        window: of sliding attention; 0 without.
        has_alibi: attention is biased by distance.
        has_learned_positions: a table of positions in place of RoPE.
        layers: in order, those for multi-token prediction last.
        facts: where the numbers come from, by name.
        cell_window: the window that the number of cells depends on; llama.cpp keeps one that no layer uses.
        widest_v: values of V for a token in the widest layer: what each layer gets without flash attention.
        flash_attention: llama.cpp runs the model with flash attention.
        is_exact: `kv_bytes` is exact. Not so where the architecture is unknown, or its cache of a kind that is not predicted.
    """

    path: str
    name: str
    architecture: str
    file_bytes: int
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    window: int
    has_alibi: bool
    has_learned_positions: bool
    layers: tuple[LayerInfo, ...]
    facts: Mapping[str, Fact]
    cell_window: int = 0
    widest_v: int = 0
    flash_attention: bool = True
    is_exact: bool = True

    def layers_of(self, kind: LayerKind) -> tuple[LayerInfo, ...]:
        """Return the layers of a kind."""
        return tuple(layer for layer in self.layers if layer.kind is kind)

    def kv_bytes(
        self,
        ctx: int = 0,
        budget: int | None = None,
        *,
        interval: int = 128,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        type_k: str = "f16",
        type_v: str = "f16",
        parallel: int = 1,
        flash_attn: bool = True,
        prefill: str = "chunked",
    ) -> KVBytes:
        """Return the bytes that the caches of a context take: what `Llama` with the same settings allocates, exactly.

        Args:
            ctx: positions for each sequence; 0: those that the model was trained for.
            budget: keys kept per layer and KV head; None: all.
            interval: tokens between evictions.
            n_batch: tokens given to llama.cpp at once.
            n_ubatch: tokens computed at once.
            type_k: type of cached keys.
            type_v: type of cached values.
            parallel: sequences, each with cells of its own.
            flash_attn: without it, V is stored as wide as that of the widest layer.
            prefill: ``full`` needs cells for all of `ctx`.

        Raises:
            ValueError: a value makes no sense, or a type does not divide a head.
        """
        from pytriattn.kv_memory import CacheSettings, kv_bytes

        settings = CacheSettings(
            ctx, budget, interval, n_batch, n_ubatch, type_k, type_v, parallel, flash_attn, prefill == "full"
        )
        if prefill not in ("chunked", "full"):
            raise ValueError(f"prefill is {prefill!r}, it must be 'chunked' or 'full'")
        return kv_bytes(self, settings)
