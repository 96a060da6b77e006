"""More tiny models with expert layers, one function per architecture."""

from __future__ import annotations

import numpy as np
from tiny_archs import WINDOW
from tiny_builder import N_VOCAB, TinyModel
from tiny_dense_norms import joint_qk_norms
from tiny_moes import expert_layers, feed_forward

_N_FF = 48  # of an expert, where llama.cpp takes it from the key for the dense blocks
_SIGMOID = 2  # how a router turns its logits into weights


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


# --- half-split pairs rotate (NEOX) ---


def qwen2moe() -> TinyModel:
    """Qwen 2 with experts; a gate of one number scales the expert that every token uses."""
    model = TinyModel("qwen2moe", n_layer=2, head_dim=32, n_embd=128, freq_base=1e6)
    model.keys({"expert_shared_feed_forward_length": _N_FF})
    for i in range(model.n_layer):
        model.weight(f"blk.{i}.ffn_gate_inp_shexp", model.n_embd)
    return expert_layers(model, bias=True, shared=True)


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


def smallthinker() -> TinyModel:
    """Every fourth layer is global and has no RoPE; the others slide by 4096 tokens, whatever the file says."""
    model = TinyModel("smallthinker", n_layer=5, head_dim=32, freq_base=1.5e6)
    model.keys({"attention.sliding_window": WINDOW, "expert_gating_func": _SIGMOID})
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


# --- sliding and global layers ---


def afmoe() -> TinyModel:
    """Sliding and global layers in turn; every fourth layer has no RoPE, whatever the file says; gated attention."""
    model = TinyModel("afmoe", n_layer=4, head_dim=32)
    model.expert_keys()
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, False, True, False],
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_weights_norm": True,
        }
    )
    model.ends(embd_std=model.n_embd**-0.5)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(i, qk_norm=True)
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i) * model.head_dim)
        feed_forward(model, i, n_dense=1, shared=True, chosen=True)
    return model
