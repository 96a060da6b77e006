"""Tiny models with expert layers, one function per architecture."""

from __future__ import annotations

from tiny_archs import WINDOW
from tiny_builder import OUT_GAIN, QK_GAIN, TinyModel


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


def qwen3moe() -> TinyModel:
    """Qwen 3 with experts in every layer."""
    return expert_layers(TinyModel("qwen3moe", n_layer=2, head_dim=32, freq_base=1e6), qk_norm=True)


def gpt_oss() -> TinyModel:
    """Sliding and global layers in turn, attention sinks, YaRN; heads of 64."""
    model = TinyModel("gpt-oss", n_layer=4, head_dim=64, freq_base=150000.0)
    model.expert_keys(n_ff=64)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 512,
        }
    )
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm")
        model.attention(i, bias=True)
        model.bias(f"blk.{i}.attn_output", model.n_embd)
        model.uniform(f"blk.{i}.attn_sinks.weight", -1.0, 2.0, model.n_head(i))
        model.experts(i, bias=True)
    return model


def llama4() -> TinyModel:
    """Three chunked layers with RoPE and normalised queries, then a global one without; every second has experts."""
    model = TinyModel("llama4", n_layer=4, head_dim=32, freq_base=500000.0)
    model.expert_keys(n_used=1)
    model.keys({"interleave_moe_layer_step": 2})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i)
        if i % 2 == 1:
            model.experts(i, shared=True)
        else:
            model.ffn(i)
    return model


def deepseek2() -> TinyModel:
    """Multi-head latent attention: one cached row per token serves all heads, a part of it rotated; no V is stored."""
    n_head, n_latent, n_nope, n_rope, d_value, n_query = 4, 96, 32, 32, 32, 48
    model = TinyModel("deepseek2", n_layer=3, n_head=n_head, n_head_kv=1, head_dim=n_latent + n_rope, n_rot=n_rope)
    model.expert_keys()
    model.keys(
        {
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "attention.value_length": n_latent,
            "attention.q_lora_rank": n_query,
            "attention.kv_lora_rank": n_latent,
            "attention.key_length_mla": n_nope + n_rope,
            "attention.value_length_mla": d_value,
        }
    )
    model.ends()
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm", "ffn_norm")
        model.weight(f"{blk}.attn_q_a", model.n_embd, n_query)
        model.norm(f"{blk}.attn_q_a_norm", n_query)
        model.weight(f"{blk}.attn_q_b", n_query, n_head * (n_nope + n_rope), gain=QK_GAIN)
        model.weight(f"{blk}.attn_kv_a_mqa", model.n_embd, n_latent + n_rope, gain=QK_GAIN)
        model.norm(f"{blk}.attn_kv_a_norm", n_latent)
        model.weight(f"{blk}.attn_k_b", n_nope, n_latent, n_head)
        model.weight(f"{blk}.attn_v_b", n_latent, d_value, n_head)
        model.weight(f"{blk}.attn_output", n_head * d_value, model.n_embd, gain=OUT_GAIN)
        if i == 0:
            model.ffn(i)
        else:
            model.experts(i, shared=True)
    return model
