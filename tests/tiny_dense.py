"""More tiny models with dense feed-forward blocks and RMS norms before them, one function per architecture."""

from __future__ import annotations

import numpy as np
from tiny_builder import TinyModel


def ungated_ffn(model: TinyModel, layer: int, *, bias: bool = False) -> None:
    """Add a feed-forward block of two matrices only."""
    blk = f"blk.{layer}"
    for part, n_in, n_out in (("up", model.n_embd, model.n_ff), ("down", model.n_ff, model.n_embd)):
        model.weight(f"{blk}.ffn_{part}", n_in, n_out)
        if bias:
            model.bias(f"{blk}.ffn_{part}", n_out, std=0.1)


def fused_bias(model: TinyModel, layer: int) -> None:
    """Add the bias of fused queries, keys and values."""
    n_rows = model.n_head(layer) + 2 * model.n_head_kv(layer)
    model.bias(f"blk.{layer}.attn_qkv", n_rows * model.head_dim)


def pre_norm(
    model: TinyModel, *, ffn_norm: str = "ffn_norm", qk_norm: bool = False, bias: bool = False, gate: bool = True
) -> TinyModel:
    """Add the ends, and layers that normalise what goes into attention and into the feed-forward block."""
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", ffn_norm)
        model.attention(i, qk_norm=qk_norm, bias=bias)
        if gate:
            model.ffn(i)
        else:
            ungated_ffn(model, i)
    return model


def side_by_side(model: TinyModel, *, tied: bool = False) -> TinyModel:
    """Add the ends, and layers whose attention and feed-forward block read the same norm."""
    model.ends(tied=tied)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm")
        model.attention(i)
        model.ffn(i)
    return model


def fused_pre_norm(model: TinyModel, *, bias: bool = False, n_ff: int | None = None, gate: bool = True) -> TinyModel:
    """Add what `pre_norm` adds, with one matrix for queries, keys and values, and one for gate and up without `gate`."""
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, fused=True)
        if bias:
            fused_bias(model, i)
        model.ffn(i, n_ff=n_ff, gate=gate)
    return model


# --- neighbouring pairs rotate (NORM) ---


def granite() -> TinyModel:
    """Four numbers of the file scale embeddings, attention logits, what a block adds, and the last logits."""
    model = TinyModel("granite", n_layer=3, head_dim=32)
    model.keys({"embedding_scale": 0.5, "attention.scale": 0.125, "residual_scale": 0.7, "logit_scale": 1.5})
    return pre_norm(model)


def minicpm() -> TinyModel:
    """Granite without a scale of its own for attention logits."""
    model = TinyModel("minicpm", n_layer=3, head_dim=64)
    model.keys({"embedding_scale": 0.5, "residual_scale": 0.7, "logit_scale": 1.5})
    return pre_norm(model)


def ernie4_5() -> TinyModel:
    """Like Llama, with one KV head."""
    return pre_norm(TinyModel("ernie4_5", n_layer=3, head_dim=64, n_head_kv=1, freq_base=500000.0))


def internlm2() -> TinyModel:
    """Like Llama; heads have to fill the embedding exactly."""
    return pre_norm(TinyModel("internlm2", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6))


def arcee() -> TinyModel:
    """Like Llama with YaRN; squared ReLU in a feed-forward block without a gate."""
    model = TinyModel("arcee", n_layer=3, head_dim=32)
    model.keys({"rope.scaling.type": "yarn", "rope.scaling.factor": 20.0, "rope.scaling.original_context_length": 128})
    return pre_norm(model, gate=False)


def chatglm() -> TinyModel:
    """Half of a head rotates, in neighbouring pairs; fused queries, keys and values, with biases."""
    model = TinyModel("chatglm", n_layer=3, head_dim=32, n_embd=128, n_rot=16)
    return fused_pre_norm(model, bias=True, gate=False)


# --- half-split pairs rotate (NEOX) ---


def gemma() -> TinyModel:
    """Queries are divided by the square root of the head's size after RoPE, not attention logits; one KV head."""
    model = TinyModel("gemma", n_layer=3, head_dim=64, n_head_kv=1)
    model.ends(embd_std=model.n_embd**-0.5, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i)
        model.ffn(i)
    return model


def seed_oss() -> TinyModel:
    """Queries, keys and values have biases; the norm before the feed-forward block has another name; heads of 64."""
    model = TinyModel("seed_oss", n_layer=3, head_dim=64, freq_base=1e7)
    return pre_norm(model, ffn_norm="post_attention_norm", bias=True)


def exaone() -> TinyModel:
    """Llama 3's factors on half-split pairs."""
    model = TinyModel("exaone", n_layer=3, head_dim=32, freq_base=1e6)
    model.tensor("rope_freqs.weight", np.interp(np.arange(16), [4, 10], [1.0, 8.0]))
    return pre_norm(model)


def apertus() -> TinyModel:
    """Normalised queries and keys, Llama 3's factors; an activation with numbers of its own for every layer."""
    model = TinyModel("apertus", n_layer=3, head_dim=64, freq_base=500000.0)
    # these keys have no architecture in front
    model.bare_keys(
        {
            "xielu.alpha_n": [0.8] * model.n_layer,
            "xielu.alpha_p": [0.8] * model.n_layer,
            "xielu.beta": [0.5] * model.n_layer,
            "xielu.eps": [-1e-6] * model.n_layer,
        }
    )
    model.tensor("rope_freqs.weight", np.interp(np.arange(32), [8, 20], [1.0, 8.0]))
    return pre_norm(model, qk_norm=True, gate=False)


# --- a position has three coordinates, all the same for text ---


def qwen2vl() -> TinyModel:
    """Qwen 2 whose bands rotate by the first, second or third coordinate, in three runs."""
    model = TinyModel("qwen2vl", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6)
    model.keys({"rope.dimension_sections": [4, 6, 6, 0]})
    return pre_norm(model, bias=True)


def qwen3vl() -> TinyModel:
    """Qwen 3 whose bands rotate by the three coordinates in turn; the first layers would take images as well."""
    model = TinyModel("qwen3vl", n_layer=3, head_dim=64, freq_base=5e6)
    model.keys({"rope.dimension_sections": [12, 10, 10, 0], "n_deepstack_layers": 2})
    return pre_norm(model, qk_norm=True)
