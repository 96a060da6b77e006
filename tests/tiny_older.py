"""Tiny models of older architectures, one function per architecture."""

from __future__ import annotations

from tiny_builder import CONTEXT_LENGTH, TinyModel
from tiny_dense import fused_pre_norm, pre_norm, side_by_side
from tiny_dense_norms import layer_norm

# --- RoPE ---


def xverse() -> TinyModel:
    """Like Llama; heads have to fill the embedding exactly."""
    return pre_norm(TinyModel("xverse", n_layer=3, head_dim=32, n_embd=128))


def baichuan() -> TinyModel:
    """Like Llama; llama.cpp knows by its 32 layers that it has RoPE."""
    return pre_norm(TinyModel("baichuan", n_layer=32, n_head=2, n_head_kv=2, head_dim=32, n_ff=32))


def plamo() -> TinyModel:
    """Half-split pairs rotate; attention and feed-forward block side by side behind one norm."""
    return side_by_side(TinyModel("plamo", n_layer=3, head_dim=32, n_embd=128))


def qwen() -> TinyModel:
    """The first Qwen: fused queries, keys and values, with biases; the file tells twice the width of the blocks."""
    model = TinyModel("qwen", n_layer=3, n_head_kv=4, head_dim=32, n_embd=128)
    return fused_pre_norm(model, bias=True, n_ff=model.n_ff // 2)


def orion() -> TinyModel:
    """Like Llama, but with layer norms that have biases."""
    model = TinyModel("orion", n_layer=3, head_dim=32, n_embd=128)
    model.keys({"attention.layer_norm_epsilon": 1e-5})
    model.ends(norm_bias=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm", bias=True)
        model.attention(i)
        model.ffn(i)
    return model


def codeshell() -> TinyModel:
    """Layer norms and biases everywhere; half-split pairs rotate."""
    return layer_norm(TinyModel("codeshell", n_layer=3, head_dim=32, n_embd=128), "attn_norm", "ffn_norm", bias=True)


def jais2() -> TinyModel:
    """Layer norms and biases everywhere; squared ReLU; heads of 64."""
    return layer_norm(TinyModel("jais2", n_layer=3, head_dim=64), "attn_norm", "ffn_norm", bias=True)


def bitnet() -> TinyModel:
    """Norms inside the blocks, before their last matrix; the embeddings are the output matrix as well."""
    model = TinyModel("bitnet", n_layer=3, head_dim=32, n_embd=128)
    model.ends(embd_std=0.2, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "attn_sub_norm", "ffn_norm")
        model.norm(f"blk.{i}.ffn_sub_norm", model.n_ff)
        model.attention(i)
        model.ffn(i)
    return model


def pangu_embed() -> TinyModel:
    """Like Llama, with biases in attention; half-split pairs rotate; heads of 64."""
    model = TinyModel("pangu-embedded", n_layer=3, head_dim=64)
    for i in range(model.n_layer):
        model.bias(f"blk.{i}.attn_output", model.n_embd, std=0.1)
    return pre_norm(model, bias=True)


def paddleocr() -> TinyModel:
    """Ernie 4.5 whose bands rotate by one of three coordinates of a position, all the same for text."""
    model = TinyModel("paddleocr", n_layer=3, head_dim=32, freq_base=500000.0)
    model.keys({"rope.dimension_sections": [4, 6, 6, 0]})
    return pre_norm(model)


# --- embeddings of positions: there are no more positions than embeddings ---


def _learned_positions(arch: str, *, n_head_kv: int) -> TinyModel:
    model = TinyModel(arch, n_layer=2, n_head_kv=n_head_kv, head_dim=32, n_embd=128)
    model.uniform("position_embd.weight", -0.5, 0.5, model.n_embd, CONTEXT_LENGTH)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True, fused=True)


def gpt2() -> TinyModel:
    """A learned embedding for each position; no sharing of KV heads."""
    return _learned_positions("gpt2", n_head_kv=4)


def starcoder() -> TinyModel:
    """A learned embedding for each position; one KV head."""
    return _learned_positions("starcoder", n_head_kv=1)


# --- a bias by distance (ALiBi) ---


def bloom() -> TinyModel:
    """Layer norms and biases everywhere; one more norm over the embeddings."""
    model = TinyModel("bloom", n_layer=2, n_head_kv=4, head_dim=32, n_embd=128)
    model.norm("token_embd_norm", model.n_embd, bias=True)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True, fused=True)


def mpt() -> TinyModel:
    """Layer norms; fused queries, keys and values, which are clamped."""
    model = TinyModel("mpt", n_layer=2, n_head_kv=4, head_dim=32, n_embd=128)
    model.keys({"attention.clamp_kqv": 3.0, "attention.max_alibi_bias": 8.0})
    return layer_norm(model, "attn_norm", "ffn_norm", bias=False, fused=True)


def refact() -> TinyModel:
    """RMS norms and gated blocks, like Llama; one KV head."""
    return pre_norm(TinyModel("refact", n_layer=2, n_head_kv=1, head_dim=32))


def baichuan_alibi() -> TinyModel:
    """The larger Baichuan, which llama.cpp knows by its 40 layers."""
    return pre_norm(TinyModel("baichuan", n_layer=40, n_head=2, n_head_kv=2, head_dim=32, n_ff=32))
