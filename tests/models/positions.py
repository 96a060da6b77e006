"""Tiny models that tell positions in a way of their own, one function per architecture."""

from __future__ import annotations

import numpy as np

from models.builder import CONTEXT_LENGTH, N_VOCAB, QK_GAIN, TinyModel
from models.dense import fused_pre_norm, pre_norm
from models.dense_norms import layer_norm

# --- RoPE with other frequencies ---


def llama_ropefreqs() -> TinyModel:
    """Llama 3's factors: fast bands untouched, slow ones divided by 8, a ramp between; heads of 64."""
    model = pre_norm(TinyModel("llama", n_layer=2, head_dim=64, freq_base=500000.0))
    model.tensor("rope_freqs.weight", np.interp(np.arange(32), [8, 20], [1.0, 8.0]))
    return model


def llama_linear() -> TinyModel:
    """Positions divided by 4 (linear scaling), as the first long-context models had it."""
    model = TinyModel("llama", n_layer=2, head_dim=32)
    model.keys({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    return pre_norm(model)


def exaone() -> TinyModel:
    """Llama 3's factors on half-split pairs."""
    model = TinyModel("exaone", n_layer=3, head_dim=32, freq_base=1e6)
    model.tensor("rope_freqs.weight", np.interp(np.arange(16), [4, 10], [1.0, 8.0]))
    return pre_norm(model)


def apertus() -> TinyModel:
    """Normalised queries and keys, Llama 3's factors; an activation with numbers of its own for every layer."""
    model = TinyModel("apertus", n_layer=3, head_dim=64, freq_base=500000.0)
    # these keys have no architecture in front
    model.bare_keys(
        {
            "xielu.alpha_n": [0.8] * model.n_layer,
            "xielu.alpha_p": [0.8] * model.n_layer,
            "xielu.beta": [0.5] * model.n_layer,
            "xielu.eps": [-1e-6] * model.n_layer,
        }
    )
    model.tensor("rope_freqs.weight", np.interp(np.arange(32), [8, 20], [1.0, 8.0]))
    return pre_norm(model, qk_norm=True, gate=False)


def arcee() -> TinyModel:
    """Like Llama with YaRN; squared ReLU in a feed-forward block without a gate."""
    model = TinyModel("arcee", n_layer=3, head_dim=32)
    model.keys({"rope.scaling.type": "yarn", "rope.scaling.factor": 20.0, "rope.scaling.original_context_length": 128})
    return pre_norm(model, gate=False)


def phi3() -> TinyModel:
    """LongRoPE: three quarters of a head rotate, with other factors and a scale for contexts beyond 512 tokens."""
    model = TinyModel("phi3", n_layer=3, head_dim=32, n_embd=128, n_rot=24)
    model.keys({"rope.scaling.original_context_length": 512, "rope.scaling.attn_factor": 1.19})
    model.tensor("rope_factors_short.weight", np.linspace(1.0, 1.5, 12))
    model.tensor("rope_factors_long.weight", np.geomspace(1.0, 16.0, 12))
    return fused_pre_norm(model, gate=False)


# --- layers without RoPE ---


def smollm3() -> TinyModel:
    """Every fourth layer has no RoPE, and no key of the file says so; heads of 64."""
    return pre_norm(TinyModel("smollm3", n_layer=4, head_dim=64, freq_base=2e6))


# --- queries or keys change between RoPE and attention ---


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
    """Neighbouring pairs (NORM), then a norm with a weight for each dimension: a head's turns are no longer
    rotations.
    """
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


# --- a position has several coordinates, all the same for text ---


def qwen2vl() -> TinyModel:
    """Qwen 2 whose bands rotate by the first, second or third coordinate, in three runs."""
    model = TinyModel("qwen2vl", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6)
    model.keys({"rope.dimension_sections": [4, 6, 6, 0]})
    return pre_norm(model, bias=True)


def qwen3vl() -> TinyModel:
    """Qwen 3 whose bands rotate by the three coordinates in turn; the first layers would take images as well."""
    model = TinyModel("qwen3vl", n_layer=3, head_dim=64, freq_base=5e6)
    model.keys({"rope.dimension_sections": [12, 10, 10, 0], "n_deepstack_layers": 2})
    return pre_norm(model, qk_norm=True)


def paddleocr() -> TinyModel:
    """Ernie 4.5 whose bands rotate by one of three coordinates of a position, all the same for text."""
    model = TinyModel("paddleocr", n_layer=3, head_dim=32, freq_base=500000.0)
    model.keys({"rope.dimension_sections": [4, 6, 6, 0]})
    return pre_norm(model)


def hunyuan_vl() -> TinyModel:
    """Queries and keys are normalised after RoPE, with weights per dimension; a position has four coordinates."""
    model = TinyModel("hunyuan_vl", n_layer=3, head_dim=32)
    model.keys({"rope.dimension_sections": [4, 4, 4, 4]})
    return pre_norm(model, qk_norm=True)


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
