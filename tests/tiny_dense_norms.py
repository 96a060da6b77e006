"""Tiny dense models with layer norms, or with norms elsewhere than before each block, one function per architecture."""

from __future__ import annotations

from tiny_archs import WINDOW
from tiny_builder import N_VOCAB, QK_GAIN, TinyModel
from tiny_dense import fused_bias, side_by_side, ungated_ffn

# --- layer norms with biases, feed-forward blocks without a gate ---


def layer_norm(model: TinyModel, *norms: str, bias: bool, fused: bool = False) -> TinyModel:
    """Add the ends, and layers that have layer norms with biases; on demand, matrices have biases as well."""
    model.keys({"attention.layer_norm_epsilon": 1e-5})
    model.ends(norm_bias=True)
    for i in range(model.n_layer):
        model.norms(i, *norms, bias=True)
        model.attention(i, bias=bias, fused=fused)
        if bias:
            model.bias(f"blk.{i}.attn_output", model.n_embd, std=0.1)
            if fused:
                fused_bias(model, i)
        ungated_ffn(model, i, bias=bias)
    return model


def phi2() -> TinyModel:
    """Fewer than half of a head's dimensions rotate; queries are scaled after RoPE; both blocks read the same norm."""
    model = TinyModel("phi2", n_layer=3, head_dim=32, n_head_kv=4, n_embd=128, n_rot=12)
    model.bias("output", N_VOCAB)
    return layer_norm(model, "attn_norm", bias=True)


def starcoder2() -> TinyModel:
    """Biases everywhere; RoPE over half-split pairs (NEOX)."""
    model = TinyModel("starcoder2", n_layer=3, head_dim=32, n_embd=128, freq_base=1e5)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True)


def falcon() -> TinyModel:
    """Attention and feed-forward block side by side, each with a norm; fused queries, keys and values; heads of 64."""
    model = TinyModel("falcon", n_layer=3, n_head=2, n_head_kv=1, head_dim=64, n_embd=128)
    return layer_norm(model, "attn_norm", "attn_norm_2", bias=False, fused=True)


def gptneox() -> TinyModel:
    """A quarter of a head rotates; no sharing of KV heads; the two blocks stand side by side."""
    model = TinyModel("gptneox", n_layer=3, head_dim=32, n_head_kv=4, n_embd=128, n_rot=8)
    model.keys({"use_parallel_residual": True})
    return layer_norm(model, "attn_norm", "ffn_norm", bias=True, fused=True)


def nemotron() -> TinyModel:
    """Half of a head rotates, in half-split pairs; squared ReLU."""
    model = TinyModel("nemotron", n_layer=3, head_dim=32, n_embd=128, n_rot=16)
    return layer_norm(model, "attn_norm", "ffn_norm", bias=False)


# --- layer norms without biases ---


def _cohere(model: TinyModel) -> TinyModel:
    # the embeddings are the output matrix as well
    model.keys({"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.125})
    return side_by_side(model, tied=True)


def command_r() -> TinyModel:
    """Neighbouring pairs rotate (NORM); one norm serves both blocks of a layer."""
    return _cohere(TinyModel("command-r", n_layer=3, head_dim=32, n_embd=128, freq_base=8e6))


def cohere2() -> TinyModel:
    """Sliding layers with RoPE over neighbouring pairs and global layers without RoPE, in turn."""
    model = TinyModel("cohere2", n_layer=4, head_dim=32, n_embd=128, freq_base=50000.0)
    model.keys({"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, False, True, False]})
    return _cohere(model)


# --- norms behind the blocks ---


def joint_qk_norms(model: TinyModel, layer: int) -> None:
    """Add norms over the queries, or keys, of all heads together."""
    model.norm(f"blk.{layer}.attn_q_norm", model.n_head(layer) * model.head_dim, mean=QK_GAIN)
    model.norm(f"blk.{layer}.attn_k_norm", model.n_head_kv(layer) * model.head_dim, mean=QK_GAIN)


def _post_norm(model: TinyModel, *, qk_norm: bool = False) -> TinyModel:
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "post_attention_norm", "post_ffw_norm")
        model.attention(i, qk_norm=qk_norm)
        model.ffn(i)
    return model


def _olmo2(model: TinyModel) -> TinyModel:
    for i in range(model.n_layer):
        joint_qk_norms(model, i)
    return _post_norm(model)


def olmo2() -> TinyModel:
    """No norms before the blocks; queries of all heads are normalised together, and so are keys."""
    return _olmo2(TinyModel("olmo2", n_layer=3, head_dim=32, n_embd=128, freq_base=500000.0))


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
    return _olmo2(model)


def exaone4() -> TinyModel:
    """No norms before the blocks; queries and keys are normalised per head."""
    return _post_norm(TinyModel("exaone4", n_layer=3, head_dim=32, n_embd=128, freq_base=1e6), qk_norm=True)


def exaone4_sliding() -> TinyModel:
    """Every fourth layer is global and has no RoPE, the others slide; llama.cpp knows this one by its 64 layers."""
    model = TinyModel("exaone4", n_layer=64, n_head=2, n_head_kv=1, head_dim=32, n_ff=32, freq_base=1e6)
    model.keys({"attention.sliding_window": WINDOW})
    return _post_norm(model, qk_norm=True)


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
