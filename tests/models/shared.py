"""Tiny models whose caches are not one to a layer: layers share one, have several or none, one function per
architecture.
"""

from __future__ import annotations

import numpy as np

from models.builder import N_VOCAB, WINDOW, TinyModel
from models.dense import ends_without_norm, pre_norm

# Gemma 3n: not told by the file, llama.cpp has these numbers in its source
_N_OWN_CACHE = 20  # layers from here on read the cache of the last sliding or global layer before
_N_STREAMS = 4
_N_TOKEN_EMBD = 256  # of the embedding of a token that each layer has for itself
_LAUREL_RANK = 64

_DAMPING = 0.3  # of what a layer adds: two dozen layers would blow up the rounding errors of the first


# --- layers that read the cache of another ---


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


def _residual_streams(model: TinyModel, layer: int) -> None:
    # four residual streams, of which one passes through the layer; the others are predicted and then corrected
    blk = f"blk.{layer}"
    model.norms(layer, "altup_router_norm")
    model.weight(f"{blk}.altup_router", model.n_embd, _N_STREAMS, gain=8.0)  # its input is divided by n_embd
    model.uniform(f"{blk}.altup_predict_coef.weight", -0.1, 0.1, _N_STREAMS, _N_STREAMS**2)
    model.uniform(f"{blk}.altup_correct_coef.weight", -0.1, 0.1, _N_STREAMS, _N_STREAMS)
    model.norms(layer, "altup_correct_scale")


def gemma3n() -> TinyModel:
    """Sliding and global layers in turn; the last two have no KV of their own and read the caches of layers 18 and 19.

    The model does not divide attention logits by the square root of the head's size, so the queries' norm does.
    """
    n_layer = _N_OWN_CACHE + 2
    model = TinyModel("gemma3n", n_layer=n_layer, n_head=2, n_head_kv=1, head_dim=32, n_ff=64, freq_base=1e6)
    model.keys(
        {
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [i % 2 == 0 for i in range(n_layer)],
            "rope.freq_base_swa": 10000.0,
        }
    )
    model.ends(embd_std=model.n_embd**-0.5, tied=True)
    model.weight("altup_proj", model.n_embd, model.n_embd, _N_STREAMS - 1)
    model.weight("altup_unembd_proj", model.n_embd, model.n_embd, _N_STREAMS - 1)
    model.weight("per_layer_model_proj", model.n_embd, _N_TOKEN_EMBD * n_layer)
    model.norm("per_layer_proj_norm", _N_TOKEN_EMBD)
    model.uniform("per_layer_token_embd.weight", -0.1, 0.1, _N_TOKEN_EMBD * n_layer, N_VOCAB)
    for i in range(n_layer):
        blk = f"blk.{i}"
        model.norms(i, "attn_norm", "ffn_norm")
        for name in ("post_attention_norm", "post_ffw_norm", "post_norm", "laurel_post_norm"):
            model.norm(f"{blk}.{name}", model.n_embd, mean=_DAMPING)
        model.attention(i, qk_norm=True, q_scale=model.head_dim**-0.5)
        model.ffn(i)
        model.weight(f"{blk}.laurel_l", model.n_embd, _LAUREL_RANK)
        model.weight(f"{blk}.laurel_r", _LAUREL_RANK, model.n_embd)
        model.weight(f"{blk}.inp_gate", model.n_embd, _N_TOKEN_EMBD)
        model.weight(f"{blk}.proj", _N_TOKEN_EMBD, model.n_embd)
        _residual_streams(model, i)
    return model


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
    ends_without_norm(model)
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


# --- a cache of another kind beside that of keys and values ---


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
