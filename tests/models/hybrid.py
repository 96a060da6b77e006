"""Tiny models that mix attention with recurrent layers, one function per architecture."""

from __future__ import annotations

from models.builder import OUT_GAIN, QK_GAIN, WINDOW, TinyModel
from models.moe import feed_forward

CONV_KERNEL = 4
SHORT_KERNEL = 3
_SIGMOID = 2  # how a router turns its logits into weights


# --- short convolutions ---


def short_convolution(model: TinyModel, layer: int) -> None:
    """Add the tensors of LFM 2's short convolution."""
    blk = f"blk.{layer}.shortconv"
    model.weight(f"{blk}.conv", SHORT_KERNEL, model.n_embd)
    model.weight(f"{blk}.in_proj", model.n_embd, 3 * model.n_embd)
    model.weight(f"{blk}.out_proj", model.n_embd, model.n_embd)


def lfm2() -> TinyModel:
    """Short convolutions, which keep a small recurrent state, between attention layers."""
    model = TinyModel("lfm2", n_layer=4, head_dim=32, n_embd=128, n_head_kv=[0, 2, 0, 2])
    model.keys({"shortconv.l_cache": SHORT_KERNEL})
    model.ends(norm="token_embd_norm")
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.ffn(i)
        if model.n_head_kv(i) > 0:
            model.attention(i, qk_norm=True)
        else:
            short_convolution(model, i)
    return model


def lfm2_sliding() -> TinyModel:
    """LFM 2 with a sliding window, which holds for every attention layer: the cache of global layers is empty."""
    model = lfm2()
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


# --- Mamba ---


def ssm_keys(model: TinyModel, *, inner: int, state: int, rank: int, groups: int) -> None:
    """Set the sizes of a state-space layer."""
    model.keys(
        {
            "ssm.conv_kernel": CONV_KERNEL,
            "ssm.inner_size": inner,
            "ssm.state_size": state,
            "ssm.time_step_rank": rank,
            "ssm.group_count": groups,
        }
    )


def mamba2(model: TinyModel, layer: int, *, inner: int, state: int, heads: int, groups: int) -> None:
    """Add the tensors of a Mamba 2 layer."""
    blk, conv = f"blk.{layer}", inner + 2 * groups * state
    model.weight(f"{blk}.ssm_in", model.n_embd, inner + conv + heads)
    model.weight(f"{blk}.ssm_conv1d", CONV_KERNEL, conv)
    model.bias(f"{blk}.ssm_conv1d", conv, std=0.1)
    model.uniform(f"{blk}.ssm_dt.bias", -4.0, -1.0, heads)
    model.uniform(f"{blk}.ssm_a", -4.0, -0.5, 1, heads)
    model.uniform(f"{blk}.ssm_d", 0.5, 1.5, 1, heads)
    model.uniform(f"{blk}.ssm_norm.weight", 0.8, 1.2, inner // groups, groups)
    model.weight(f"{blk}.ssm_out", inner, model.n_embd)


def attention_or_mamba2(model: TinyModel, layer: int, *, inner: int, state: int, groups: int) -> None:
    """Add attention where the layer has KV heads, else Mamba 2."""
    if model.n_head_kv(layer) > 0:
        model.attention(layer)
    else:
        mamba2(model, layer, inner=inner, state=state, heads=4, groups=groups)


def granitehybrid() -> TinyModel:
    """Mamba 2 layers with an attention layer after each; no RoPE anywhere, by a key of the file."""
    model = TinyModel("granitehybrid", n_layer=4, head_dim=32, n_head_kv=[0, 2, 0, 2])
    size = {"inner": 2 * model.n_embd, "state": 16, "groups": 1}
    ssm_keys(model, rank=4, **size)
    model.keys({"rope.scaling.finetuned": False})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.ffn(i)
        attention_or_mamba2(model, i, **size)
    return model


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


def falcon_h1() -> TinyModel:
    """Mamba 2 and attention side by side in every layer; heads of 64."""
    model = TinyModel("falcon-h1", n_layer=2, head_dim=64)
    size = {"inner": 2 * model.n_embd, "state": 16, "groups": 1}
    ssm_keys(model, rank=4, **size)
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm")
        model.uniform(f"blk.{i}.ffn_norm", 0.8, 1.2, model.n_embd)  # this name has no suffix
        model.attention(i)
        mamba2(model, i, heads=4, **size)
        model.ffn(i)
    return model


def jamba() -> TinyModel:
    """Mamba 1 layers, attention without RoPE after each, experts in the last layer."""
    model = TinyModel("jamba", n_layer=4, head_dim=32, n_embd=128, n_ff=64, n_head_kv=[0, 2, 0, 2])
    inner, state, rank = 2 * model.n_embd, 16, 8
    ssm_keys(model, inner=inner, state=state, rank=rank, groups=1)
    model.expert_keys(n_ff=model.n_ff)
    model.ends()
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm", "ffn_norm")
        if i == model.n_layer - 1:
            model.experts(i)
        else:
            model.ffn(i)
        if model.n_head_kv(i) > 0:
            model.attention(i)
            continue
        model.weight(f"{blk}.ssm_in", model.n_embd, 2 * inner)
        model.weight(f"{blk}.ssm_conv1d", CONV_KERNEL, inner)
        model.bias(f"{blk}.ssm_conv1d", inner, std=0.1)
        model.weight(f"{blk}.ssm_x", inner, rank + 2 * state)
        for part, n in (("dt", rank), ("b", state), ("c", state)):
            model.norm(f"{blk}.ssm_{part}_norm", n)
        model.weight(f"{blk}.ssm_dt", rank, inner)
        model.uniform(f"{blk}.ssm_dt.bias", -4.0, -1.0, inner)
        model.uniform(f"{blk}.ssm_a", -4.0, -0.5, state, inner)
        model.uniform(f"{blk}.ssm_d", 0.5, 1.5, inner)
        model.weight(f"{blk}.ssm_out", inner, model.n_embd)
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


_STATE, _K_HEADS, _V_HEADS = 32, 2, 4


def _delta_net(model: TinyModel, layer: int) -> None:
    blk, keys, values = f"blk.{layer}", _STATE * _K_HEADS, _STATE * _V_HEADS
    model.weight(f"{blk}.attn_qkv", model.n_embd, 2 * keys + values)
    model.weight(f"{blk}.attn_gate", model.n_embd, values)
    model.weight(f"{blk}.ssm_conv1d", CONV_KERNEL, 2 * keys + values)
    model.uniform(f"{blk}.ssm_dt.bias", -4.0, -1.0, _V_HEADS)
    model.uniform(f"{blk}.ssm_a", -2.0, -0.2, _V_HEADS)
    model.norm(f"{blk}.ssm_norm", _STATE)
    model.weight(f"{blk}.ssm_out", values, model.n_embd)


def delta_net_keys(model: TinyModel) -> None:
    """Set the sizes of gated delta networks, which take turns with attention."""
    ssm_keys(model, inner=_STATE * _V_HEADS, state=_STATE, rank=_V_HEADS, groups=_K_HEADS)
    model.keys({"full_attention_interval": 2})


def attention_or_delta_net(model: TinyModel, layer: int) -> None:
    """Add what takes turns in Qwen 3.5: a gated delta network, then gated attention."""
    if layer % 2 == 1:
        model.attention(layer, qk_norm=True, gated=True)
        return
    _delta_net(model, layer)
    for part in ("alpha", "beta"):
        model.weight(f"blk.{layer}.ssm_{part}", model.n_embd, _V_HEADS)


def qwen35() -> TinyModel:
    """Gated delta networks and gated attention in turn; a quarter of a head rotates, by four interleaved positions."""
    model = TinyModel("qwen35", n_layer=4, head_dim=64, n_rot=16, freq_base=1e7)
    delta_net_keys(model)
    model.keys({"rope.dimension_sections": [3, 3, 2, 0]})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm")
        model.ffn(i)
        attention_or_delta_net(model, i)
    return model


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


def qwen3next() -> TinyModel:
    """Gated delta networks and gated attention in turn, with experts; a quarter of a head rotates."""
    model = TinyModel("qwen3next", n_layer=4, head_dim=32, n_rot=8, freq_base=1e7)
    delta_net_keys(model)
    model.expert_keys()
    model.keys({"expert_shared_feed_forward_length": 48})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm")
        model.experts(i, shared=True)
        model.weight(f"blk.{i}.ffn_gate_inp_shexp", model.n_embd)
        if i % 2 == 1:
            model.attention(i, qk_norm=True, gated=True)
        else:
            _delta_net(model, i)
            model.weight(f"blk.{i}.ssm_ba", model.n_embd, 2 * _V_HEADS)
    return model
