"""Tiny models whose files carry a layer for multi-token prediction, one function per architecture.

That layer comes after the last one: `block_count` includes it, but llama.cpp neither loads nor caches it unless asked.
"""

from __future__ import annotations

import numpy as np

from models import hybrid
from models.builder import OUT_GAIN, QK_GAIN, WINDOW, TinyModel
from models.hybrid import mamba2, ssm_keys

_SIGMOID = 2  # how a router turns its logits into weights


def prediction_head(model: TinyModel, norm: str = "nextn.shared_head_norm") -> int:
    """Append a layer that predicts one token more; return its index, where the rest of it belongs."""
    layer = model.n_layer
    model.keys({"block_count": layer + 1, "nextn_predict_layers": 1})
    model.norms(layer, "nextn.enorm", "nextn.hnorm", norm)
    model.weight(f"blk.{layer}.nextn.eh_proj", 2 * model.n_embd, model.n_embd)
    return layer


def _chosen_experts(model: TinyModel, layer: int) -> None:
    # a bias of the scores has a say in which experts are used, but not in their weights
    model.experts(layer, shared=True)
    model.bias(f"blk.{layer}.exp_probs_b", 4, std=0.1)


def glm4moe() -> TinyModel:
    """Half of a head rotates, in half-split pairs; experts in all but the first layer; heads of 64."""
    model = TinyModel("glm4moe", n_layer=3, head_dim=64, n_rot=32)
    model.expert_keys()
    model.keys({"leading_dense_block_count": 1, "expert_shared_count": 1, "expert_weights_norm": True})
    model.ends()
    for i in (*range(model.n_layer), prediction_head(model)):
        model.norms(i, "attn_norm", "post_attention_norm")
        model.attention(i, qk_norm=True, bias=True)
        if i == 0:
            model.ffn(i)
        else:
            _chosen_experts(model, i)
    return model


def qwen35_mtp() -> TinyModel:
    """Qwen 3.5 with a prediction layer, which has attention though it would be a gated delta network's turn."""
    model = hybrid.qwen35()
    head = prediction_head(model)
    model.norms(head, "attn_norm", "post_attention_norm")
    model.attention(head, qk_norm=True, gated=True)
    model.ffn(head)
    return model


def bailingmoe2() -> TinyModel:
    """Half of a head rotates; the prediction layer, which llama.cpp always skips, ends with a norm of its own."""
    model = TinyModel("bailingmoe2", n_layer=3, head_dim=32, n_embd=128, n_rot=16)
    model.expert_keys()
    model.keys({"leading_dense_block_count": 1, "expert_shared_count": 1, "expert_gating_func": _SIGMOID})
    model.ends()
    head = prediction_head(model)
    model.norms(head, "layer_output_norm")
    for i in (*range(model.n_layer), head):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True, fused=True)
        if i == 0:
            model.ffn(i)
        else:
            _chosen_experts(model, i)
    return model


def exaone_moe() -> TinyModel:
    """Sliding layers with RoPE and global layers without in turn; every layer but the first has experts."""
    model = TinyModel("exaone-moe", n_layer=4, head_dim=32, freq_base=1e6)
    model.expert_keys()
    model.keys(
        {
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_gating_func": _SIGMOID,
            "expert_weights_norm": True,
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, False, True, False, False],
        }
    )
    model.ends()
    head = prediction_head(model)
    for i in (*range(model.n_layer), head):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True)
        if i in (0, head):
            model.ffn(i)
        else:
            _chosen_experts(model, i)
    return model


def step35() -> TinyModel:
    """Global layers have fewer query heads than sliding ones and rotate half of a head, by slowed-down factors.

    The key that tells n_rot says that all of a head rotates. A gate scales what each query head returns; heads of 64.
    """
    sliding = [True, False, True, False, True]
    model = TinyModel("step35", n_layer=4, n_head=[6 if s else 4 for s in sliding], head_dim=64, freq_base=5e6)
    model.expert_keys()
    model.keys(
        {
            "expert_shared_feed_forward_length": 48,
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": sliding,
            "rope.freq_base_swa": 10000.0,
        }
    )
    model.tensor("rope_freqs.weight", np.interp(np.arange(32), [4, 12], [1.0, 8.0]))
    model.ends()
    head = prediction_head(model)
    for i in (*range(model.n_layer), head):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True)
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i))
        if i in (0, head):
            model.ffn(i)
        else:
            _chosen_experts(model, i)
    return model


def mimo2() -> TinyModel:
    """Keys of 96, of which a third rotates, and values of 64; sliding layers have more KV heads, and sinks."""
    sliding = [True, False, True, False, True]
    d_key, d_value = 96, 64
    model = TinyModel("mimo2", n_layer=4, n_head_kv=[4 if s else 2 for s in sliding], head_dim=d_key, n_rot=32)
    model.expert_keys()
    model.keys(
        {
            "attention.value_length": d_value,
            "attention.value_scale": 0.7,
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": sliding,
            "rope.freq_base": 5e6,
            "rope.freq_base_swa": 10000.0,
        }
    )
    model.ends()
    head = prediction_head(model)
    for i in (*range(model.n_layer), head):
        blk, n_head, n_head_kv = f"blk.{i}", model.n_head(i), model.n_head_kv(i)
        model.norms(i, "attn_norm", "ffn_norm")
        model.weight(f"{blk}.attn_q", model.n_embd, n_head * d_key, gain=QK_GAIN)
        model.weight(f"{blk}.attn_k", model.n_embd, n_head_kv * d_key, gain=QK_GAIN)
        model.weight(f"{blk}.attn_v", model.n_embd, n_head_kv * d_value)
        model.weight(f"{blk}.attn_output", n_head * d_value, model.n_embd, gain=OUT_GAIN)
        if sliding[i]:
            model.uniform(f"{blk}.attn_sinks.weight", -1.0, 2.0, n_head)
        if i in (0, head):
            model.ffn(i)
        else:
            model.experts(i)
            model.bias(f"{blk}.exp_probs_b", 4, std=0.1)
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
