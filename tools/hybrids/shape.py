"""The sizes of a small model, without PyTorch: what the network, the exporter and the tests have in common."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hybrids.text import N_VOCAB

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a model of the architecture ``qwen35``; the defaults are those of the trained ones.

    Attributes:
        attention_interval: one layer of so many has attention, the last of each group; 1: all layers.
        n_layer: layers.
        n_embd: width of the residual stream.
        n_ff: width of the feed-forward blocks.
        n_head: query heads of an attention layer.
        n_head_kv: KV heads of an attention layer.
        head_dim: dimensions of an attention head.
        n_rot: dimensions of it that RoPE rotates.
        freq_base: base of RoPE's frequencies.
        n_state_head: heads of a gated delta network.
        state_dim: dimensions of their keys and values; a head's state has this many squared.
        conv_kernel: tokens that the short convolution sees.
        norm_eps: added to mean squares.
        n_vocab: tokens of the vocabulary.
        n_ctx: longest text that a model is trained on.
    """

    attention_interval: int
    n_layer: int = 4
    n_embd: int = 128
    n_ff: int = 256
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    n_rot: int = 16
    freq_base: float = 10000.0
    n_state_head: int = 4
    state_dim: int = 16
    conv_kernel: int = 4
    norm_eps: float = 1e-6
    n_vocab: int = N_VOCAB
    n_ctx: int = 2048

    def has_attention(self, layer: int) -> bool:
        """Whether a layer has attention, and not a gated delta network."""
        return (layer + 1) % self.attention_interval == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return asdict(self)


SHAPES = {"hybrid": Shape(attention_interval=4), "attention": Shape(attention_interval=1)}
"""The two models that are compared, by name."""
