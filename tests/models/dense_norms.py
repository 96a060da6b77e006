"""Tiny dense models with layer norms, or with norms elsewhere than before each block, one function per architecture."""

from __future__ import annotations

from models.builder import N_VOCAB, QK_GAIN, TinyModel
from models.dense import ends_without_norm, fused_bias, side_by_side, ungated_ffn

# --- layer norms with biases ---


def layer_norm(model: TinyModel, *norms: str, bias: bool, fused: bool = False) -> TinyModel:
    """Add the ends, and layers that have layer norms with biases; on demand, matrices have biases as well."""
    model.keys({"attention.layer_norm_epsilon": 1e-5})
    model.ends(norm_bias=True)
    for i in range(model.n_layer):
        model.norms(i, *norms, bias=True)
        model.attention(i, bias=bias, fused=fused)
        if bias:
            model.bias(f"blk.{i}.attn_output", model.n_embd, std=0.1)
            if fused:
                fused_bias(model, i)
        ungated_ffn(model, i, bias=bias)
    return model


def phi2() -> TinyModel:
    """Fewer than half of a head's dimensions rotate; queries are scaled after RoPE; both blocks read the same norm."""
    model = TinyModel("phi2", n_layer=3, head_dim=32, n_head_kv=4, n_embd=128, n_rot=12)
    model.bias("output", N_VOCAB)
    return layer_norm(model, "attn_norm", bias=True)


def starcoder2() -> TinyModel:
    """Biases everywhere; RoPE over half-split pairs (NEOX)."""
    model = TinyModel("starcoder2", n_layer=3, head_dim=32, n_embd=128, freq_base=1e5)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True)


def falcon() -> TinyModel:
    """Attention and feed-forward block side by side, each with a norm; fused queries, keys and values; heads of 64."""
    model = TinyModel("falcon", n_layer=3, n_head=2, n_head_kv=1, head_dim=64, n_embd=128)
    return layer_norm(model, "attn_norm", "attn_norm_2", bias=False, fused=True)


def gptneox() -> TinyModel:
    """A quarter of a head rotates; no sharing of KV heads; the two blocks stand side by side."""
    model = TinyModel("gptneox", n_layer=3, head_dim=32, n_head_kv=4, n_embd=128, n_rot=8)
    model.keys({"use_parallel_residual": True})
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True, fused=True)


def nemotron() -> TinyModel:
    """Half of a head rotates, in half-split pairs; squared ReLU."""
    model = TinyModel("nemotron", n_layer=3, head_dim=32, n_embd=128, n_rot=16)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=False)


def codeshell() -> TinyModel:
    """Layer norms and biases everywhere; half-split pairs rotate."""
    return layer_norm(TinyModel("codeshell", n_layer=3, head_dim=32, n_embd=128), "attn_norm", "ffn_norm", bias=True)


def jais2() -> TinyModel:
    """Layer norms and biases everywhere; squared ReLU; heads of 64."""
    return layer_norm(TinyModel("jais2", n_layer=3, head_dim=64), "attn_norm", "ffn_norm", bias=True)


def stablelm() -> TinyModel:
    """A quarter of a head rotates, in half-split pairs; layer norms with biases instead of RMS norms."""
    model = TinyModel("stablelm", n_layer=3, head_dim=32, n_embd=128, n_rot=8)
    model.keys({"attention.layer_norm_epsilon": 1e-5})
    model.ends(norm_bias=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm", bias=True)
        model.attention(i, bias=True)
        model.ffn(i)
    return model


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


# --- layer norms without biases, or without weights ---


def cohere(model: TinyModel) -> TinyModel:
    """Add layers whose blocks stand side by side; the embeddings are the output matrix as well."""
    model.keys({"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.125})
    return side_by_side(model, tied=True)


def command_r() -> TinyModel:
    """Neighbouring pairs rotate (NORM); one norm serves both blocks of a layer."""
    return cohere(TinyModel("command-r", n_layer=3, head_dim=32, n_embd=128, freq_base=8e6))


def olmo() -> TinyModel:
    """Layer norms without weights; queries, keys and values are clamped before RoPE."""
    model = TinyModel("olmo", n_layer=3, head_dim=32, n_embd=128)
    model.keys({"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": 3.0})
    ends_without_norm(model)
    for i in range(model.n_layer):
        model.attention(i)
        model.ffn(i)
    return model


# --- norms behind the blocks, or inside them ---


def joint_qk_norms(model: TinyModel, layer: int) -> None:
    """Add norms over the queries, or keys, of all heads together."""
    model.norm(f"blk.{layer}.attn_q_norm", model.n_head(layer) * model.head_dim, mean=QK_GAIN)
    model.norm(f"blk.{layer}.attn_k_norm", model.n_head_kv(layer) * model.head_dim, mean=QK_GAIN)


def post_norm(model: TinyModel, *, qk_norm: bool = False) -> TinyModel:
    """Add the ends, and layers with a norm behind each block and none before it."""
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "post_attention_norm", "post_ffw_norm")
        model.attention(i, qk_norm=qk_norm)
        model.ffn(i)
    return model


def joint_post_norm(model: TinyModel) -> TinyModel:
    """Add what `post_norm` adds, with norms over the queries, and over the keys, of all heads together."""
    for i in range(model.n_layer):
        joint_qk_norms(model, i)
    return post_norm(model)


def olmo2() -> TinyModel:
    """No norms before the blocks; queries of all heads are normalised together, and so are keys."""
    return joint_post_norm(TinyModel("olmo2", n_layer=3, head_dim=32, n_embd=128, freq_base=500000.0))


def exaone4() -> TinyModel:
    """No norms before the blocks; queries and keys are normalised per head."""
    return post_norm(TinyModel("exaone4", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6), qk_norm=True)


def sandwich(model: TinyModel, *, qk_norm: bool) -> TinyModel:
    """Add the ends, and layers with norms before and behind each block; the model itself scales the embeddings up."""
    model.ends(embd_std=model.n_embd**-0.5, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(i, qk_norm=qk_norm)
        model.ffn(i)
    return model


def glm4() -> TinyModel:
    """Half of a head rotates, in neighbouring pairs; norms before and after each block, biases, one KV head."""
    model = TinyModel("glm4", n_layer=3, head_dim=32, n_rot=16, n_head_kv=1)
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(i, bias=True)
        model.ffn(i, gate=False)
    return model


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
