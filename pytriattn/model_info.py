"""What a GGUF file tells about its model, without loading it: layers, RoPE, and the memory of a KV cache."""

from __future__ import annotations

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
        source: ``key NAME`` or ``tensor NAME`` of the file, or ``rule of ARCHITECTURE (file in llama.cpp)`` where metadata cannot tell.
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
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """Return the factor on rotated dimensions, YaRN's own included."""
        raise NotImplementedError


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
        raise NotImplementedError
