"""Tiny models that change queries or keys between RoPE and attention, one function per architecture."""

from __future__ import annotations

from tiny_builder import N_VOCAB, QK_GAIN, TinyModel
from tiny_dense import pre_norm


def mistral3() -> TinyModel:
    """Queries grow with their position, by a step every 128 tokens; YaRN; heads of 64."""
    model = TinyModel("mistral3", n_layer=3, head_dim=64, freq_base=1e6)
    model.keys(
        {
            "attention.temperature_scale": 0.1,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 16.0,
            "rope.scaling.original_context_length": 128,
            "rope.scaling.yarn_log_multiplier": 1.0,
        }
    )
    return pre_norm(model)


def maincoder() -> TinyModel:
    """Neighbouring pairs (NORM), then a norm with a weight for each dimension: a head's turns are no longer rotations."""
    return pre_norm(TinyModel("maincoder", n_layer=3, head_dim=32), qk_norm=True)


def hunyuan_dense() -> TinyModel:
    """Half-split pairs (NEOX) with a raised base, then a norm with a weight for each dimension; heads of 64."""
    model = TinyModel("hunyuan-dense", n_layer=3, head_dim=64)
    model.keys({"rope.scaling.alpha": 50.0})
    return pre_norm(model, qk_norm=True)


def talkie() -> TinyModel:
    """RoPE, then a norm without weights, times a number for each query head: still a rotation. No other norm either."""
    model = TinyModel("talkie", n_layer=3, head_dim=32, n_head_kv=4)
    model.keys({"logit_scale": 1.0})
    model.weight("token_embd", model.n_embd, N_VOCAB, gain=model.n_embd**0.5)
    model.weight("output", model.n_embd, N_VOCAB, gain=2.0)
    for i in range(model.n_layer):
        model.attention(i)
        model.uniform(f"blk.{i}.attn_q_norm.weight", QK_GAIN, 2.0 * QK_GAIN, 1, model.n_head(i))
        model.ffn(i)
        model.uniform(f"blk.{i}.layer_output_scale.weight", 0.1, 0.3, 1)
    return model
