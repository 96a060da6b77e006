"""Tiny models with dense feed-forward blocks and attention in every layer, one function per architecture."""

from __future__ import annotations

import numpy as np
from tiny_builder import N_VOCAB, TinyModel
from tiny_dense import fused_pre_norm, pre_norm

WINDOW = 32  # of sliding attention: shorter than any text the tests read


def llama() -> TinyModel:
    """Neighbouring pairs rotate (NORM); everything else is plain."""
    return pre_norm(TinyModel("llama", n_layer=3, head_dim=32))


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


def qwen2() -> TinyModel:
    """Half-split pairs (NEOX); queries, keys and values have biases."""
    return pre_norm(TinyModel("qwen2", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6), bias=True)


def qwen3() -> TinyModel:
    """Half-split pairs (NEOX), queries and keys normalised per head; heads of 64."""
    return pre_norm(TinyModel("qwen3", n_layer=3, head_dim=64, freq_base=1e6), qk_norm=True)


def smollm3() -> TinyModel:
    """Every fourth layer has no RoPE, and no key of the file says so; heads of 64."""
    return pre_norm(TinyModel("smollm3", n_layer=4, head_dim=64, freq_base=2e6))


def phi3() -> TinyModel:
    """LongRoPE: three quarters of a head rotate, with other factors and a scale for contexts beyond 512 tokens."""
    model = TinyModel("phi3", n_layer=3, head_dim=32, n_embd=128, n_rot=24)
    model.keys({"rope.scaling.original_context_length": 512, "rope.scaling.attn_factor": 1.19})
    model.tensor("rope_factors_short.weight", np.linspace(1.0, 1.5, 12))
    model.tensor("rope_factors_long.weight", np.geomspace(1.0, 16.0, 12))
    return fused_pre_norm(model, gate=False)


def glm4() -> TinyModel:
    """Half of a head rotates, in neighbouring pairs; norms before and after each block, biases, one KV head."""
    model = TinyModel("glm4", n_layer=3, head_dim=32, n_rot=16, n_head_kv=1)
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(i, bias=True)
        model.ffn(i, gate=False)
    return model


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


def _gemma(model: TinyModel, *, qk_norm: bool) -> TinyModel:
    # embeddings are scaled up by the model itself and serve as the output matrix as well
    model.ends(embd_std=model.n_embd**-0.5, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        model.attention(i, qk_norm=qk_norm)
        model.ffn(i)
    return model


def gemma2() -> TinyModel:
    """Sliding and global layers in turn; attention logits and final logits are capped; heads of 64."""
    model = TinyModel("gemma2", n_layer=4, head_dim=64)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }
    )
    return _gemma(model, qk_norm=False)


def gemma3() -> TinyModel:
    """Two of every three layers look back 32 tokens only, with a RoPE base of their own; one KV head of 96."""
    model = TinyModel("gemma3", n_layer=6, head_dim=96, n_head_kv=1, freq_base=1e6)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, True, False, True, True, False],
            "rope.freq_base_swa": 10000.0,
        }
    )
    return _gemma(model, qk_norm=True)


def gemma4() -> TinyModel:
    """Proportional RoPE hides in factors of 1e30; the last sliding and the last global layer have no KV of their own.

    Global heads are wider than sliding ones, and the key that tells n_rot says that all of a head rotates. Every layer
    gets an embedding of the token for itself. The last layer reads the cache of layer 3.
    """
    model = TinyModel("gemma4", n_layer=6, head_dim=64, freq_base=1e6)
    sliding, d_sliding, n_own = [True, False, True, False, True, False], 32, 16
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": sliding,
            "attention.shared_kv_layers": 2,
            "attention.key_length_swa": d_sliding,
            "attention.value_length_swa": d_sliding,
            "rope.dimension_count_swa": d_sliding,
            "rope.freq_base_swa": 10000.0,
            "embedding_length_per_layer_input": n_own,
            "final_logit_softcapping": 30.0,
        }
    )
    model.tensor("rope_freqs.weight", np.where(np.arange(model.head_dim // 2) < 8, 1.0, 1e30))
    model.ends(embd_std=model.n_embd**-0.5, tied=True)
    model.weight("per_layer_model_proj", model.n_embd, n_own * model.n_layer)
    model.norm("per_layer_proj_norm", n_own)
    model.uniform("per_layer_token_embd.weight", -0.4, 0.4, n_own * model.n_layer, N_VOCAB)
    for i, is_sliding in enumerate(sliding):
        model.norms(i, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm")
        # the model does not divide attention logits by the square root of the head's size, so the queries' norm does
        d = d_sliding if is_sliding else model.head_dim
        model.attention(i, head_dim=d, qk_norm=True, q_scale=d**-0.5, has_kv=i < model.n_layer - 2)
        model.ffn(i)
        model.weight(f"blk.{i}.inp_gate", model.n_embd, n_own)
        model.weight(f"blk.{i}.proj", n_own, model.n_embd)
        model.uniform(f"blk.{i}.layer_output_scale.weight", 0.7, 0.9, 1)
    return model
