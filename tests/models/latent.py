"""Tiny models that compress keys and values into a latent vector, one function per architecture.

Some expand it before they cache it, some afterwards. Either way the dimensions that rotate are the last of a head.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from models.builder import OUT_GAIN, QK_GAIN, TinyModel
from models.mtp import prediction_head


@dataclasses.dataclass(frozen=True)
class _Sizes:
    latent: int = 64
    nope: int = 64  # of a head's query and key: what does not rotate ...
    rope: int = 32  # ... and what does, shared by the keys of all heads
    value: int = 64
    query: int = 48  # of the latent vector that queries come from; 0 if they come from the input

    @property
    def key(self) -> int:
        """Count the dimensions of a head's query or key."""
        return self.nope + self.rope


def _attention(model: TinyModel, layer: int, sizes: _Sizes, *, absorbed: bool) -> None:
    # absorbed: the expansion of keys is moved to the queries, so that the latent vector can serve as the key
    blk, n_head = f"blk.{layer}", model.n_head(layer)
    if sizes.query > 0:
        model.weight(f"{blk}.attn_q_a", model.n_embd, sizes.query)
        model.norm(f"{blk}.attn_q_a_norm", sizes.query)
        model.weight(f"{blk}.attn_q_b", sizes.query, n_head * sizes.key, gain=QK_GAIN)
    else:
        model.weight(f"{blk}.attn_q", model.n_embd, n_head * sizes.key, gain=QK_GAIN)
    model.weight(f"{blk}.attn_kv_a_mqa", model.n_embd, sizes.latent + sizes.rope, gain=QK_GAIN)
    model.norm(f"{blk}.attn_kv_a_norm", sizes.latent)
    if absorbed:
        model.weight(f"{blk}.attn_k_b", sizes.nope, sizes.latent, n_head)
        model.weight(f"{blk}.attn_v_b", sizes.latent, sizes.value, n_head)
    else:
        model.weight(f"{blk}.attn_kv_b", sizes.latent, n_head * (sizes.nope + sizes.value), gain=QK_GAIN)
    model.weight(f"{blk}.attn_output", n_head * sizes.value, model.n_embd, gain=OUT_GAIN)


def _expanded(arch: str, sizes: _Sizes, *, n_embd: int = 64) -> TinyModel:
    # keys and values are cached in full, with as many heads as the queries
    model = TinyModel(arch, n_layer=3, n_head_kv=4, head_dim=sizes.key, n_embd=n_embd, n_rot=sizes.rope)
    model.keys({"attention.value_length": sizes.value, "attention.kv_lora_rank": sizes.latent})
    if sizes.query > 0:
        model.keys({"attention.q_lora_rank": sizes.query})
    return model


def _compressed(arch: str, sizes: _Sizes, *, n_layer: int = 3, n_head_kv: int | list[int] = 1) -> TinyModel:
    # a cached row is the latent vector and the dimensions that rotate; values are read from it as well
    model = TinyModel(arch, n_layer=n_layer, n_head_kv=n_head_kv, head_dim=sizes.latent + sizes.rope, n_rot=sizes.rope)
    model.keys(
        {
            "attention.value_length": sizes.latent,
            "attention.kv_lora_rank": sizes.latent,
            "attention.key_length_mla": sizes.key,
            "attention.value_length_mla": sizes.value,
        }
    )
    if sizes.query > 0:
        model.keys({"attention.q_lora_rank": sizes.query})
    return model


def _deepseek(model: TinyModel, sizes: _Sizes, *, absorbed: bool, predicts: bool = False) -> TinyModel:
    model.expert_keys()
    model.keys({"leading_dense_block_count": 1, "expert_shared_count": 1})
    model.ends()
    for i in (*range(model.n_layer), *([prediction_head(model)] if predicts else [])):
        model.norms(i, "attn_norm", "ffn_norm")
        _attention(model, i, sizes, absorbed=absorbed)
        if i == 0:
            model.ffn(i)
        else:
            model.experts(i, shared=True)
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


def deepseek2_full() -> TinyModel:
    """DeepSeek 2 as its first files had it: full keys of 96, full values of 64; YaRN also sharpens the logits."""
    sizes = _Sizes()
    model = _expanded("deepseek2", sizes)
    model.keys(
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 512,
            "rope.scaling.yarn_log_multiplier": 0.0707,
        }
    )
    return _deepseek(model, sizes, absorbed=False)


def deepseek2_mtp() -> TinyModel:
    """DeepSeek 2 that caches latent vectors, with a layer for multi-token prediction at the end of the file."""
    sizes = _Sizes()
    return _deepseek(_compressed("deepseek2", sizes), sizes, absorbed=True, predicts=True)


def mistral4() -> TinyModel:
    """DeepSeek 2 under another name; queries grow with their position, after RoPE, by a step every 64 tokens."""
    sizes = _Sizes()
    model = _compressed("mistral4", sizes)
    model.keys({"attention.temperature_scale": 0.1, "attention.temperature_length": 64})
    return _deepseek(model, sizes, absorbed=True)


def minicpm3() -> TinyModel:
    """Half-split pairs (NEOX) and LongRoPE's factors; embeddings, residuals and the output are scaled by the model."""
    sizes = _Sizes()
    model = _expanded("minicpm3", sizes)
    model.keys({"rope.scaling.original_context_length": 512})
    model.tensor("rope_factors_short.weight", np.linspace(1.0, 1.5, sizes.rope // 2))
    model.tensor("rope_factors_long.weight", np.geomspace(1.0, 16.0, sizes.rope // 2))
    model.ends(embd_std=1 / 12, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        _attention(model, i, sizes, absorbed=False)
        model.ffn(i)
    return model


def plm() -> TinyModel:
    """Neighbouring pairs (NORM); queries are not compressed; a feed-forward block without a gate.

    llama.cpp decodes it without flash attention only: with it, it aborts when it first builds the graph.
    """
    sizes = _Sizes(query=0)
    model = _expanded("plm", sizes)
    model.ends(embd_std=0.25, tied=True)
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm", "ffn_norm")
        _attention(model, i, sizes, absorbed=False)
        model.weight(f"{blk}.ffn_up", model.n_embd, model.n_ff)
        model.weight(f"{blk}.ffn_down", model.n_ff, model.n_embd)
    return model


# --- Kimi's delta attention ---

_KERNEL, _DELTA_DIM = 4, 32


def _delta_attention(model: TinyModel, layer: int, *, low_rank: bool) -> None:
    # every head and every dimension of its state decays at a rate of its own
    blk, n_head = f"blk.{layer}", model.n_head(layer)
    inner = n_head * _DELTA_DIM
    for part in "qkv":
        model.weight(f"{blk}.attn_{part}", model.n_embd, inner)
        model.weight(f"{blk}.ssm_conv1d_{part}", _KERNEL, 1, inner)
    for gate in "fg":
        model.weight(f"{blk}.ssm_{gate}_a", model.n_embd, _DELTA_DIM if low_rank else inner)
        if low_rank:
            model.weight(f"{blk}.ssm_{gate}_b", _DELTA_DIM, inner)
    model.weight(f"{blk}.ssm_beta", model.n_embd, n_head)
    model.uniform(f"{blk}.ssm_a", -2.0, -0.2, 1, n_head)
    model.uniform(f"{blk}.ssm_dt.bias", -4.0, -1.0, inner)
    model.norm(f"{blk}.ssm_norm", _DELTA_DIM)
    model.weight(f"{blk}.attn_output", inner, model.n_embd, gain=OUT_GAIN)


def _delta_keys(model: TinyModel) -> None:
    model.expert_keys()
    model.keys(
        {
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_gating_func": 2,  # sigmoid
            "ssm.conv_kernel": _KERNEL,
            "kda.head_dim": _DELTA_DIM,
        }
    )


def _dense_then_experts(model: TinyModel, layer: int) -> None:
    if layer == 0:
        model.ffn(layer)
    else:
        model.experts(layer, shared=True)
        model.bias(f"blk.{layer}.exp_probs_b", 4, std=0.1)


def kimi_linear() -> TinyModel:
    """Delta attention and latent attention in turn; nothing rotates, though the keys speak of RoPE."""
    sizes = _Sizes(query=0)
    model = _compressed("kimi-linear", sizes, n_layer=4, n_head_kv=[0, 1, 0, 1])
    _delta_keys(model)
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        _dense_then_experts(model, i)
        if model.n_head_kv(i) > 0:
            _attention(model, i, sizes, absorbed=True)
        else:
            _delta_attention(model, i, low_rank=True)
    return model


def bailingmoe3() -> TinyModel:
    """Delta attention and gated latent attention in turn, with RoPE.

    The prediction layer gets a cache although nothing writes or reads it.
    """
    sizes = _Sizes()
    model = _compressed("bailingmoe3", sizes, n_layer=4, n_head_kv=[0, 1, 0, 1, 1])
    _delta_keys(model)
    model.keys({"kda.gate_lower_bound": -5.0})
    model.ends()
    head = prediction_head(model, norm="layer_output_norm")
    for i in (*range(model.n_layer), head):
        model.norms(i, "attn_norm", "ffn_norm")
        _dense_then_experts(model, i)
        if model.n_head_kv(i) > 0:
            _attention(model, i, sizes, absorbed=True)
            model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i))
        else:
            _delta_attention(model, i, low_rank=False)
    return model
