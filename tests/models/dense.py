"""Tiny models with attention in every layer, dense feed-forward blocks and RMS norms before them, one function per
architecture.
"""

from __future__ import annotations

from models.builder import N_VOCAB, TinyModel


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
    """Add what `pre_norm` adds, with one matrix for queries, keys and values, and one for gate and up without
    `gate`.
    """
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, fused=True)
        if bias:
            fused_bias(model, i)
        model.ffn(i, n_ff=n_ff, gate=gate)
    return model


def ends_without_norm(model: TinyModel) -> None:
    """Add token embeddings and the output matrix; the last norm has no weight."""
    model.uniform("token_embd.weight", -1.0, 2.0, model.n_embd, N_VOCAB)
    model.weight("output", model.n_embd, N_VOCAB, gain=2.0)


# --- neighbouring pairs rotate (NORM) ---


def llama() -> TinyModel:
    """Neighbouring pairs rotate (NORM); everything else is plain."""
    return pre_norm(TinyModel("llama", n_layer=3, head_dim=32))


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


def chatglm() -> TinyModel:
    """Half of a head rotates, in neighbouring pairs; fused queries, keys and values, with biases."""
    model = TinyModel("chatglm", n_layer=3, head_dim=32, n_embd=128, n_rot=16)
    return fused_pre_norm(model, bias=True, gate=False)


def xverse() -> TinyModel:
    """Like Llama; heads have to fill the embedding exactly."""
    return pre_norm(TinyModel("xverse", n_layer=3, head_dim=32, n_embd=128))


def baichuan() -> TinyModel:
    """Like Llama; llama.cpp knows by its 32 layers that it has RoPE."""
    return pre_norm(TinyModel("baichuan", n_layer=32, n_head=2, n_head_kv=2, head_dim=32, n_ff=32))


# --- half-split pairs rotate (NEOX) ---


def qwen() -> TinyModel:
    """The first Qwen: fused queries, keys and values, with biases; the file tells twice the width of the blocks."""
    model = TinyModel("qwen", n_layer=3, n_head_kv=4, head_dim=32, n_embd=128)
    return fused_pre_norm(model, bias=True, n_ff=model.n_ff // 2)


def qwen2() -> TinyModel:
    """Half-split pairs (NEOX); queries, keys and values have biases."""
    return pre_norm(TinyModel("qwen2", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6), bias=True)


def qwen3() -> TinyModel:
    """Half-split pairs (NEOX), queries and keys normalised per head; heads of 64."""
    return pre_norm(TinyModel("qwen3", n_layer=3, head_dim=64, freq_base=1e6), qk_norm=True)


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


def plamo() -> TinyModel:
    """Half-split pairs rotate; attention and feed-forward block side by side behind one norm."""
    return side_by_side(TinyModel("plamo", n_layer=3, head_dim=32, n_embd=128))


def pangu_embed() -> TinyModel:
    """Like Llama, with biases in attention; half-split pairs rotate; heads of 64."""
    model = TinyModel("pangu-embedded", n_layer=3, head_dim=64)
    for i in range(model.n_layer):
        model.bias(f"blk.{i}.attn_output", model.n_embd, std=0.1)
    return pre_norm(model, bias=True)


def openelm() -> TinyModel:
    """Layers have different numbers of heads, and of KV heads."""
    model = TinyModel("openelm", n_layer=3, n_head=[2, 4, 6], n_head_kv=[1, 1, 3], head_dim=32)
    model.ends(embd_std=0.5, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True, fused=True)
        model.ffn(i)
    return model
