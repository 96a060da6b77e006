"""Tiny models some of whose layers look back a few tokens only, one function per architecture."""

from __future__ import annotations

from models.builder import WINDOW, TinyModel
from models.dense import pre_norm
from models.dense_norms import cohere, joint_post_norm, post_norm, sandwich
from models.moe import expert_layers, feed_forward

_SIGMOID = 2  # how a router turns its logits into weights


def slide(model: TinyModel, pattern: list[bool]) -> None:
    """Say which layers look back `WINDOW` tokens only."""
    model.keys({"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": pattern})


# --- dense ---


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
    return sandwich(model, qk_norm=False)


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
    return sandwich(model, qk_norm=True)


def cohere2() -> TinyModel:
    """Sliding layers with RoPE over neighbouring pairs and global layers without RoPE, in turn."""
    model = TinyModel("cohere2", n_layer=4, head_dim=32, n_embd=128, freq_base=50000.0)
    model.keys({"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, False, True, False]})
    return cohere(model)


def olmo2_sliding() -> TinyModel:
    """OLMo 3: sliding and global layers in turn, of which only the global ones have YaRN."""
    model = TinyModel("olmo2", n_layer=4, head_dim=32, n_embd=128, freq_base=500000.0)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, False, True, False],
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 256,
        }
    )
    return joint_post_norm(model)


def exaone4_sliding() -> TinyModel:
    """Every fourth layer is global and has no RoPE, the others slide; llama.cpp knows this one by its 64 layers."""
    model = TinyModel("exaone4", n_layer=64, n_head=2, n_head_kv=1, head_dim=32, n_ff=32, freq_base=1e6)
    model.keys({"attention.sliding_window": WINDOW})
    return post_norm(model, qk_norm=True)


def plamo3() -> TinyModel:
    """Norms before and after each block; sliding layers have a RoPE base of their own; half of a head rotates."""
    model = TinyModel("plamo3", n_layer=4, head_dim=64, n_rot=32, freq_base=1e6)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, False, True, False],
            "rope.freq_base_swa": 10000.0,
        }
    )
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        for name in ("post_attention_norm", "post_ffw_norm"):
            model.uniform(f"blk.{i}.{name}", 0.7, 1.3, model.n_embd)  # without ".weight"
        model.attention(i, qk_norm=True, fused=True)
        model.ffn(i, gate=False)
    return model


def granite_swa() -> TinyModel:
    """Every layer has sinks, and the file says which of them have RoPE: here one of two global layers."""
    model = TinyModel("granite_swa", n_layer=4, head_dim=32)
    slide(model, [True, False, True, False])
    model.keys({"attention.rope_pattern": [True, True, True, False]})
    model.keys({"embedding_scale": 0.5, "attention.scale": 0.125, "residual_scale": 0.7, "logit_scale": 1.5})
    for i in range(model.n_layer):
        model.uniform(f"blk.{i}.attn_sinks.weight", -1.0, 2.0, model.n_head(i))
    return pre_norm(model)


def spark2_5() -> TinyModel:
    """Sliding layers have more heads and a RoPE base of their own; a gate scales what each query head returns."""
    sliding = [True, False, True, False]
    n_head, n_head_kv = [6 if s else 4 for s in sliding], [3 if s else 2 for s in sliding]
    model = TinyModel("spark2_5", n_layer=4, n_head=n_head, n_head_kv=n_head_kv, head_dim=32, freq_base=1e6)
    slide(model, sliding)
    model.keys({"rope.freq_base_swa": 10000.0})
    for i in range(model.n_layer):
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i))
    return pre_norm(model)


def muse_glimmer() -> TinyModel:
    """Global layers have no RoPE; norms before and after each block, gated attention, capped logits."""
    model = TinyModel("muse-glimmer", n_layer=4, head_dim=32, freq_base=500000.0)
    slide(model, [True, False, True, False])
    model.keys({"logit_scale": 1.5, "final_logit_softcapping": 30.0})
    for i in range(model.n_layer):
        model.norms(i, "post_attention_norm", "post_ffw_norm")
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i) * model.head_dim)
    return pre_norm(model, qk_norm=True)


# --- with experts ---


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


def smallthinker() -> TinyModel:
    """Every fourth layer is global and has no RoPE; the others slide by 4096 tokens, whatever the file says."""
    model = TinyModel("smallthinker", n_layer=5, head_dim=32, freq_base=1.5e6)
    model.keys({"attention.sliding_window": WINDOW, "expert_gating_func": _SIGMOID})
    return expert_layers(model)


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


def cohere2moe() -> TinyModel:
    """Global layers have no RoPE, but for the dense one at the start."""
    model = TinyModel("cohere2moe", n_layer=4, head_dim=32)
    slide(model, [False, True, False, True])
    model.expert_keys()
    model.keys({"logit_scale": 0.7, "leading_dense_block_count": 1, "expert_shared_count": 1})
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "attn_norm")
        model.attention(i)
        feed_forward(model, i, n_dense=1, shared=True)
    return model


def laguna() -> TinyModel:
    """Global layers have fewer query heads than sliding ones, rotate half of a head and have YaRN; heads of 64."""
    sliding = [False, True, False, True]
    model = TinyModel(
        "laguna", n_layer=4, n_head=[6 if s else 4 for s in sliding], head_dim=64, n_rot=32, freq_base=5e5
    )
    slide(model, sliding)
    model.expert_keys()
    model.keys(
        {
            "leading_dense_block_count": 1,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 256,
            "rope.dimension_count_swa": 64,
            "rope.freq_base_swa": 10000.0,
        }
    )
    for i in range(model.n_layer):
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i))
    return expert_layers(model, qk_norm=True, n_dense=1, shared=True, chosen=True)


def mellum() -> TinyModel:
    """Qwen 3 with experts and sliding layers; only the global layers have YaRN."""
    model = TinyModel("mellum", n_layer=4, head_dim=32, freq_base=500000.0)
    slide(model, [True, False, True, False])
    model.keys({"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 256})
    return expert_layers(model, qk_norm=True)


def maple() -> TinyModel:
    """Global layers have no RoPE; experts in every layer, whose inner values are clamped."""
    model = TinyModel("maple", n_layer=4, head_dim=32, freq_base=500000.0)
    slide(model, [True, False, True, False])
    model.keys({"swiglu_clamp_exp": 5.0})
    return expert_layers(model, qk_norm=True)
