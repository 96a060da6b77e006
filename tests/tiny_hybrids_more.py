"""More tiny models that mix attention with recurrent layers, one function per architecture."""

from __future__ import annotations

import tiny_hybrids
from tiny_archs import WINDOW
from tiny_builder import OUT_GAIN, QK_GAIN, TinyModel
from tiny_hybrids import (
    CONV_KERNEL,
    SHORT_KERNEL,
    attention_or_delta_net,
    attention_or_mamba2,
    delta_net_keys,
    mamba2,
    short_convolution,
    ssm_keys,
)
from tiny_moes import feed_forward
from tiny_mtp import prediction_head

_SIGMOID = 2  # how a router turns its logits into weights


def lfm2_sliding() -> TinyModel:
    """LFM 2 with a sliding window, which holds for every attention layer: the cache of global layers is empty."""
    model = tiny_hybrids.lfm2()
    model.keys({"attention.sliding_window": WINDOW})
    return model


def lfm2moe() -> TinyModel:
    """Short convolutions between attention layers, with experts in all but the first layer."""
    model = TinyModel("lfm2moe", n_layer=4, head_dim=32, n_embd=128, n_head_kv=[0, 2, 0, 2])
    model.expert_keys()
    model.keys({"shortconv.l_cache": SHORT_KERNEL, "leading_dense_block_count": 1, "expert_gating_func": _SIGMOID})
    model.ends(norm="token_embd_norm")
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        feed_forward(model, i, n_dense=1, chosen=True)
        if model.n_head_kv(i) > 0:
            model.attention(i, qk_norm=True)
        else:
            short_convolution(model, i)
    return model


# --- Mamba 2 ---


def granitehybrid_moe() -> TinyModel:
    """Granite's hybrid with experts and RoPE, in neighbouring pairs; the file tells the scale of attention logits."""
    model = TinyModel("granitehybrid", n_layer=4, head_dim=32, n_ff=48, n_head_kv=[0, 2, 0, 2])
    size = {"inner": 2 * model.n_embd, "state": 16, "groups": 1}
    ssm_keys(model, rank=4, **size)
    model.expert_keys(n_ff=model.n_ff)
    model.keys({"expert_shared_feed_forward_length": 48, "attention.scale": 0.25})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.experts(i, shared=True)
        attention_or_mamba2(model, i, **size)
    return model


def nemotron_h() -> TinyModel:
    """A layer is Mamba 2, attention without RoPE or a feed-forward block, but never two of them."""
    model = TinyModel("nemotron_h", n_layer=6, head_dim=64, n_head_kv=[0, 2, 0, 0, 2, 0])
    size = {"inner": 2 * model.n_embd, "state": 16, "groups": 2}
    wide = [0, 0, model.n_ff, 0, 0, model.n_ff]
    ssm_keys(model, rank=4, **size)
    model.keys({"feed_forward_length": wide, "attention.layer_norm_epsilon": 1e-5})
    model.ends()
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm")
        if wide[i] > 0:
            model.weight(f"{blk}.ffn_up", model.n_embd, model.n_ff)
            model.weight(f"{blk}.ffn_down", model.n_ff, model.n_embd)
        else:
            attention_or_mamba2(model, i, **size)
    return model


def _plain_experts(model: TinyModel, layer: int, *, n_expert: int = 4, n_ff: int = 48) -> None:
    # neither the experts nor the one that every token uses has a gate
    blk = f"blk.{layer}"
    model.weight(f"{blk}.ffn_gate_inp", model.n_embd, n_expert, gain=2.0)
    model.bias(f"{blk}.exp_probs_b", n_expert, std=0.1)
    model.weight(f"{blk}.ffn_up_exps", model.n_embd, n_ff, n_expert)
    model.weight(f"{blk}.ffn_down_exps", n_ff, model.n_embd, n_expert)
    model.weight(f"{blk}.ffn_up_shexp", model.n_embd, n_ff)
    model.weight(f"{blk}.ffn_down_shexp", n_ff, model.n_embd)


def nemotron_h_moe() -> TinyModel:
    """Nemotron-H with experts; its prediction layer is the only one with both attention and experts."""
    model = TinyModel("nemotron_h_moe", n_layer=6, head_dim=32, n_head_kv=[0, 2, 0, 0, 2, 0, 2])
    size = {"inner": 2 * model.n_embd, "state": 16, "groups": 2}
    wide = [0, 0, 48, 0, 0, 48, 48]
    ssm_keys(model, rank=4, **size)
    model.expert_keys()
    model.keys({"feed_forward_length": wide, "expert_shared_feed_forward_length": 48})
    model.keys({"attention.layer_norm_epsilon": 1e-5, "expert_weights_norm": True})
    model.ends()
    head = prediction_head(model)
    model.norms(head, "post_attention_norm")
    for i in (*range(model.n_layer), head):
        model.norms(i, "attn_norm")
        if model.n_head_kv(i) > 0:
            model.attention(i)
        if wide[i] > 0:
            _plain_experts(model, i)
        elif model.n_head_kv(i) == 0:
            mamba2(model, i, heads=4, **size)
    return model


def _plamo2_mamba(model: TinyModel, layer: int, *, inner: int, state: int, heads: int) -> None:
    blk, rank = f"blk.{layer}", 64  # the least that the model allows
    model.weight(f"{blk}.ssm_in", model.n_embd, 2 * inner)
    model.weight(f"{blk}.ssm_conv1d", CONV_KERNEL, inner)
    model.weight(f"{blk}.ssm_x", inner, rank + 2 * state)
    for part, n in (("dt", rank), ("b", state), ("c", state)):
        model.uniform(f"{blk}.ssm_{part}_norm", 0.8, 1.2, n)  # these names have no suffix
    model.weight(f"{blk}.ssm_dt", rank, heads)
    model.uniform(f"{blk}.ssm_dt.bias", -4.0, -1.0, heads)
    model.uniform(f"{blk}.ssm_a", -4.0, -0.5, heads)
    model.uniform(f"{blk}.ssm_d", 0.5, 1.5, heads)
    model.weight(f"{blk}.ssm_out", inner, model.n_embd)


def plamo2() -> TinyModel:
    """Mamba 2 and attention in turn; every head has a norm of its own, and half-split pairs rotate."""
    model = TinyModel("plamo2", n_layer=4, head_dim=32, n_head_kv=[0, 2, 0, 2])
    size = {"inner": 2 * model.n_embd, "state": 16}
    ssm_keys(model, rank=4, groups=0, **size)
    model.ends()
    for i in range(model.n_layer):
        blk, d = f"blk.{i}", model.head_dim
        model.norms(i, "attn_norm", "ffn_norm")
        model.uniform(f"{blk}.post_attention_norm", 0.8, 1.2, model.n_embd)  # these names have no suffix
        model.uniform(f"{blk}.post_ffw_norm", 0.8, 1.2, model.n_embd)
        model.ffn(i, gate=False)
        if model.n_head_kv(i) > 0:
            n_head, n_head_kv = model.n_head(i), model.n_head_kv(i)
            model.weight(f"{blk}.attn_qkv", model.n_embd, d * (n_head + 2 * n_head_kv))
            model.uniform(f"{blk}.attn_q_norm.weight", 0.7 * QK_GAIN, 1.3 * QK_GAIN, d, n_head)
            model.uniform(f"{blk}.attn_k_norm.weight", 0.7 * QK_GAIN, 1.3 * QK_GAIN, d, n_head_kv)
            model.weight(f"{blk}.attn_output", d * n_head, model.n_embd, gain=OUT_GAIN)
        else:
            _plamo2_mamba(model, i, heads=4, **size)
    return model


# --- gated delta networks ---


def qwen35moe() -> TinyModel:
    """Qwen 3.5 with experts in every layer; the one that every token uses has a gate."""
    model = TinyModel("qwen35moe", n_layer=4, head_dim=64, n_rot=16, freq_base=1e7)
    model.expert_keys()
    delta_net_keys(model)
    model.keys({"expert_shared_feed_forward_length": 48, "rope.dimension_sections": [3, 3, 2, 0]})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm")
        model.experts(i, shared=True)
        model.weight(f"blk.{i}.ffn_gate_inp_shexp", model.n_embd)
        attention_or_delta_net(model, i)
    return model
