"""Tiny models of rarer architectures, whose caches or whose RoPE are special, one function per architecture."""

from __future__ import annotations

from tiny_archs import WINDOW
from tiny_builder import N_VOCAB, TinyModel
from tiny_dense import pre_norm
from tiny_moes import expert_layers, feed_forward


def _ends_without_norm(model: TinyModel) -> None:
    # the last norm has no weight
    model.uniform("token_embd.weight", -1.0, 2.0, model.n_embd, N_VOCAB)
    model.weight("output", model.n_embd, N_VOCAB, gain=2.0)


def hunyuan_vl() -> TinyModel:
    """Queries and keys are normalised after RoPE, with weights per dimension; a position has four coordinates."""
    model = TinyModel("hunyuan_vl", n_layer=3, head_dim=32)
    model.keys({"rope.dimension_sections": [4, 4, 4, 4]})
    return pre_norm(model, qk_norm=True)


# --- there are more caches, or fewer, than layers in the file ---


def nanbeige() -> TinyModel:
    """The layers of the file run twice, and keep a cache for each time: four caches for two layers."""
    model = TinyModel("nanbeige", n_layer=2, head_dim=32)
    model.keys({"num_loops": 2})
    return pre_norm(model)


def hrm_text() -> TinyModel:
    """Two layers run in turn, twice each, and `block_count` counts the caches; norms have no weights."""
    model = TinyModel("hrm_text", n_layer=4, head_dim=32)
    model.keys(
        {
            "hrm.layers_per_stack": 1,
            "hrm.h_cycles": 2,
            "hrm.l_cycles": 1,
            "hrm.prefix_lm": False,
            "embedding_scale": 2.0,
        }
    )
    _ends_without_norm(model)
    model.uniform("hrm.z_l_init", -1.0, 1.0, model.n_embd)
    for i in range(2):
        model.attention(i)
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i) * model.head_dim)
        model.ffn(i)
    return model


def deci() -> TinyModel:
    """Two of five layers have no cache: one has a matrix in place of attention, the other has nothing there."""
    model = TinyModel("deci", n_layer=5, n_head=[4, 4, 4, 0, 4], n_head_kv=[2, 0, 4, 0, 1], head_dim=32)
    model.ends()
    for i in range(model.n_layer):
        model.norms(i, "ffn_norm", *(["attn_norm"] if model.n_head(i) > 0 else []))
        model.ffn(i)
        if model.n_head_kv(i) > 0:
            model.attention(i)
        elif model.n_head(i) > 0:
            model.weight(f"blk.{i}.attn_output", model.n_embd, model.n_embd)
    return model


def openelm() -> TinyModel:
    """Layers have different numbers of heads, and of KV heads."""
    model = TinyModel("openelm", n_layer=3, n_head=[2, 4, 6], n_head_kv=[1, 1, 3], head_dim=32)
    model.ends(embd_std=0.5, tied=True)
    for i in range(model.n_layer):
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True, fused=True)
        model.ffn(i)
    return model


# --- sliding and global layers ---


def _sliding(model: TinyModel, pattern: list[bool]) -> None:
    model.keys({"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": pattern})


def granite_swa() -> TinyModel:
    """Every layer has sinks, and the file says which of them have RoPE: here one of two global layers."""
    model = TinyModel("granite_swa", n_layer=4, head_dim=32)
    _sliding(model, [True, False, True, False])
    model.keys({"attention.rope_pattern": [True, True, True, False]})
    model.keys({"embedding_scale": 0.5, "attention.scale": 0.125, "residual_scale": 0.7, "logit_scale": 1.5})
    for i in range(model.n_layer):
        model.uniform(f"blk.{i}.attn_sinks.weight", -1.0, 2.0, model.n_head(i))
    return pre_norm(model)


def cohere2moe() -> TinyModel:
    """Global layers have no RoPE, but for the dense one at the start."""
    model = TinyModel("cohere2moe", n_layer=4, head_dim=32)
    _sliding(model, [False, True, False, True])
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
    _sliding(model, sliding)
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
    _sliding(model, [True, False, True, False])
    model.keys({"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 256})
    return expert_layers(model, qk_norm=True)


def spark2_5() -> TinyModel:
    """Sliding layers have more heads and a RoPE base of their own; a gate scales what each query head returns."""
    sliding = [True, False, True, False]
    n_head, n_head_kv = [6 if s else 4 for s in sliding], [3 if s else 2 for s in sliding]
    model = TinyModel("spark2_5", n_layer=4, n_head=n_head, n_head_kv=n_head_kv, head_dim=32, freq_base=1e6)
    _sliding(model, sliding)
    model.keys({"rope.freq_base_swa": 10000.0})
    for i in range(model.n_layer):
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i))
    return pre_norm(model)


def muse_glimmer() -> TinyModel:
    """Global layers have no RoPE; norms before and after each block, gated attention, capped logits."""
    model = TinyModel("muse-glimmer", n_layer=4, head_dim=32, freq_base=500000.0)
    _sliding(model, [True, False, True, False])
    model.keys({"logit_scale": 1.5, "final_logit_softcapping": 30.0})
    for i in range(model.n_layer):
        model.norms(i, "post_attention_norm", "post_ffw_norm")
        model.weight(f"blk.{i}.attn_gate", model.n_embd, model.n_head(i) * model.head_dim)
    return pre_norm(model, qk_norm=True)


def maple() -> TinyModel:
    """Global layers have no RoPE; experts in every layer, whose inner values are clamped."""
    model = TinyModel("maple", n_layer=4, head_dim=32, freq_base=500000.0)
    _sliding(model, [True, False, True, False])
    model.keys({"swiglu_clamp_exp": 5.0})
    return expert_layers(model, qk_norm=True)


# --- a cache of another kind ---


def minimax_m3() -> TinyModel:
    """All layers but the first choose blocks of keys by an index, and keep a cache for that index beside their own."""
    model = TinyModel("minimax-m3", n_layer=3, head_dim=64, n_rot=32)
    d_index = 64
    model.expert_keys()
    model.keys(
        {
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_gating_func": 2,
            "attention.indexer.head_count": model.n_head_kv(0),
            "attention.indexer.key_length": d_index,
            "attention.indexer.top_k": 2,
            "attention.indexer.block_size": 64,
            "attention.indexer.local_blocks": 1,
        }
    )
    model.ends()
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm", "ffn_norm")
        model.attention(i, qk_norm=True)
        if i == 0:
            model.ffn(i)
            continue
        model.experts(i, shared=True)
        model.bias(f"{blk}.exp_probs_b", 4, std=0.1)
        model.weight(f"{blk}.indexer.q_proj", model.n_embd, model.n_head_kv(i) * d_index)
        model.weight(f"{blk}.indexer.k_proj", model.n_embd, d_index)
        model.norm(f"{blk}.indexer.q_norm", d_index)
        model.norm(f"{blk}.indexer.k_norm", d_index)
    return model


# --- nothing special about caches or RoPE ---


def olmo() -> TinyModel:
    """Layer norms without weights; queries, keys and values are clamped before RoPE."""
    model = TinyModel("olmo", n_layer=3, head_dim=32, n_embd=128)
    model.keys({"attention.layer_norm_epsilon": 1e-5, "attention.clamp_kqv": 3.0})
    _ends_without_norm(model)
    for i in range(model.n_layer):
        model.attention(i)
        model.ffn(i)
    return model


def bailingmoe() -> TinyModel:
    """The first Ling: neighbouring pairs rotate; a head is as wide as what rotates of it."""
    model = TinyModel("bailingmoe", n_layer=2, head_dim=32)
    model.keys({"expert_shared_count": 1, "expert_weights_norm": True})
    return expert_layers(model, shared=True)


def grovemoe() -> TinyModel:
    """Qwen 3 with experts of two kinds: a narrow one for every two wide ones."""
    model = TinyModel("grovemoe", n_layer=2, head_dim=32, freq_base=1e6)
    model.keys({"experts_per_group": 2, "expert_group_scale": 0.5, "expert_chunk_feed_forward_length": 32})
    for i in range(model.n_layer):
        blk = f"blk.{i}"
        model.weight(f"{blk}.ffn_gate_chexps", model.n_embd, 32, 2)
        model.weight(f"{blk}.ffn_up_chexps", model.n_embd, 32, 2)
        model.weight(f"{blk}.ffn_down_chexps", 32, model.n_embd, 2)
    return expert_layers(model, qk_norm=True)


def hy_v3() -> TinyModel:
    """Hunyuan 3: queries and keys are normalised before RoPE again; the first layer is dense."""
    model = TinyModel("hy_v3", n_layer=3, head_dim=32)
    model.keys({"expert_weights_norm": True})
    for i in range(1, model.n_layer):
        model.uniform(f"blk.{i}.exp_probs_b", -0.2, 0.2, 4)  # without ".bias"
    return expert_layers(model, qk_norm=True, n_dense=1, shared=True)
