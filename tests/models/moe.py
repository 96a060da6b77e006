"""Tiny models with expert layers and full attention, one function per architecture."""

from __future__ import annotations

import numpy as np

from models.builder import N_VOCAB, TinyModel
from models.dense_norms import joint_qk_norms

_N_FF = 48  # of an expert, where llama.cpp takes it from the key for the dense blocks
_SIGMOID = 2  # how a router turns its logits into weights


def feed_forward(model: TinyModel, layer: int, *, n_dense: int = 0, shared: bool = False, chosen: bool = False) -> None:
    """Add a dense block to one of the first layers, or else experts.

    Chosen: a bias has a say in which experts are used, but not in their weights.
    """
    if layer < n_dense:
        model.ffn(layer)
        return
    model.experts(layer, shared=shared)
    if chosen:
        model.bias(f"blk.{layer}.exp_probs_b", 4, std=0.1)


def expert_layers(
    model: TinyModel,
    *,
    qk_norm: bool = False,
    bias: bool = False,
    n_dense: int = 0,
    shared: bool = False,
    chosen: bool = False,
) -> TinyModel:
    """Add the ends, and layers that normalise what goes into attention and into experts; the first ones are dense."""
    model.expert_keys()
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=qk_norm, bias=bias)
        feed_forward(model, i, n_dense=n_dense, shared=shared, chosen=chosen)
    return model


# --- neighbouring pairs rotate (NORM) ---


def granitemoe() -> TinyModel:
    """Granite with experts, and one more that every token uses."""
    model = TinyModel("granitemoe", n_layer=2, head_dim=32, n_ff=_N_FF)
    model.keys({"embedding_scale": 0.5, "attention.scale": 0.125, "residual_scale": 0.7, "logit_scale": 1.5})
    model.keys({"expert_shared_feed_forward_length": _N_FF})
    return expert_layers(model, shared=True)


def ernie4_5_moe() -> TinyModel:
    """The first layer is dense; the other ones have experts, and one more that every token uses."""
    model = TinyModel("ernie4_5-moe", n_layer=3, head_dim=32, freq_base=500000.0)
    model.keys(
        {
            "leading_dense_block_count": 1,
            "interleave_moe_layer_step": 1,
            "expert_shared_feed_forward_length": _N_FF,
        }
    )
    return expert_layers(model, n_dense=1, shared=True, chosen=True)


def deepseek() -> TinyModel:
    """The first DeepSeek: no latent attention; heads have to fill the embedding exactly."""
    model = TinyModel("deepseek", n_layer=3, n_head_kv=4, head_dim=32, n_embd=128)
    model.keys({"leading_dense_block_count": 1, "expert_shared_count": 1})
    return expert_layers(model, n_dense=1, shared=True)


def bailingmoe() -> TinyModel:
    """The first Ling: neighbouring pairs rotate; a head is as wide as what rotates of it."""
    model = TinyModel("bailingmoe", n_layer=2, head_dim=32)
    model.keys({"expert_shared_count": 1, "expert_weights_norm": True})
    return expert_layers(model, shared=True)


# --- half-split pairs rotate (NEOX) ---


def qwen2moe() -> TinyModel:
    """Qwen 2 with experts; a gate of one number scales the expert that every token uses."""
    model = TinyModel("qwen2moe", n_layer=2, head_dim=32, n_embd=128, freq_base=1e6)
    model.keys({"expert_shared_feed_forward_length": _N_FF})
    for i in range(model.n_layer):
        model.weight(f"blk.{i}.ffn_gate_inp_shexp", model.n_embd)
    return expert_layers(model, bias=True, shared=True)


def qwen3moe() -> TinyModel:
    """Qwen 3 with experts in every layer."""
    return expert_layers(TinyModel("qwen3moe", n_layer=2, head_dim=32, freq_base=1e6), qk_norm=True)


def hunyuan_moe() -> TinyModel:
    """Queries and keys are normalised after RoPE, with a weight per dimension; heads of 64."""
    model = TinyModel("hunyuan-moe", n_layer=2, head_dim=64, n_ff=_N_FF)
    return expert_layers(model, qk_norm=True, shared=True)


def dots1() -> TinyModel:
    """Normalised queries and keys, no sharing of KV heads; the first layer is dense."""
    model = TinyModel("dots1", n_layer=3, n_head_kv=4, head_dim=32)
    model.keys({"leading_dense_block_count": 1, "expert_shared_count": 1, "expert_gating_func": _SIGMOID})
    return expert_layers(model, qk_norm=True, n_dense=1, shared=True, chosen=True)


def minimax_m2() -> TinyModel:
    """Half of a head rotates; queries of all heads are normalised together, and so are keys; heads of 64."""
    model = TinyModel("minimax-m2", n_layer=2, head_dim=64, n_ff=_N_FF, n_rot=32, freq_base=5e6)
    model.keys({"expert_gating_func": _SIGMOID})
    for i in range(model.n_layer):
        joint_qk_norms(model, i)
    return expert_layers(model, chosen=True)


def olmoe() -> TinyModel:
    """Queries of all heads are normalised together, and so are keys; no sharing of KV heads."""
    model = TinyModel("olmoe", n_layer=2, n_head_kv=4, head_dim=32, n_embd=128, n_ff=_N_FF)
    for i in range(model.n_layer):
        joint_qk_norms(model, i)
    return expert_layers(model)


def qwen3vlmoe() -> TinyModel:
    """Qwen 3 with experts; bands rotate by three coordinates in turn, all the same for text."""
    model = TinyModel("qwen3vlmoe", n_layer=2, head_dim=64, freq_base=5e6)
    model.keys({"rope.dimension_sections": [12, 10, 10, 0]})
    return expert_layers(model, qk_norm=True)


def phimoe() -> TinyModel:
    """LongRoPE over whole heads, with other factors beyond 512 tokens; biases everywhere but in the experts."""
    model = TinyModel("phimoe", n_layer=2, head_dim=32, n_embd=128, n_ff=_N_FF)
    model.keys({"rope.scaling.original_context_length": 512, "rope.scaling.attn_factor": 1.19})
    model.tensor("rope_factors_short.weight", np.linspace(1.0, 1.5, 16))
    model.tensor("rope_factors_long.weight", np.geomspace(1.0, 16.0, 16))
    model.expert_keys()
    model.ends(norm_bias=True)
    model.bias("output", N_VOCAB)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm", bias=True)
        model.attention(i, bias=True)
        model.bias(f"blk.{i}.attn_output", model.n_embd, std=0.1)
        model.experts(i)
    return model


def grok() -> TinyModel:
    """Attention logits are scaled and capped; norms before and after each block."""
    model = TinyModel("grok", n_layer=2, head_dim=32, n_embd=128)
    model.expert_keys()
    model.keys({"embedding_scale": 2.0, "logit_scale": 0.5, "attention.output_scale": model.head_dim**-0.5})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "attn_output_norm", "ffn_norm", "layer_output_norm")
        model.attention(i)
        model.experts(i)
    return model


def dbrx() -> TinyModel:
    """Layer norms without biases; fused queries, keys and values, which are clamped before RoPE."""
    model = TinyModel("dbrx", n_layer=2, head_dim=32, n_embd=128, n_ff=_N_FF, freq_base=500000.0)
    model.expert_keys()
    model.keys({"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": 3.0})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "attn_output_norm")
        model.attention(i, fused=True)
        model.experts(i)
    return model


def grovemoe() -> TinyModel:
    """Qwen 3 with experts of two kinds: a narrow one for every two wide ones."""
    model = TinyModel("grovemoe", n_layer=2, head_dim=32, freq_base=1e6)
    model.keys({"experts_per_group": 2, "expert_group_scale": 0.5, "expert_chunk_feed_forward_length": 32})
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.weight(f"{blk}.ffn_gate_chexps", model.n_embd, 32, 2)
        model.weight(f"{blk}.ffn_up_chexps", model.n_embd, 32, 2)
        model.weight(f"{blk}.ffn_down_chexps", 32, model.n_embd, 2)
    return expert_layers(model, qk_norm=True)


def hy_v3() -> TinyModel:
    """Hunyuan 3: queries and keys are normalised before RoPE again; the first layer is dense."""
    model = TinyModel("hy_v3", n_layer=3, head_dim=32)
    model.keys({"expert_weights_norm": True})
    for i in range(1, model.n_layer):
        model.uniform(f"blk.{i}.exp_probs_b", -0.2, 0.2, 4)  # without ".bias"
    return expert_layers(model, qk_norm=True, n_dense=1, shared=True)
