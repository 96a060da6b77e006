"""Gemma 3n: too many layers to be as tiny as the other models, since llama.cpp fixes which of them share a cache."""

from __future__ import annotations

from tiny_archs import WINDOW
from tiny_builder import N_VOCAB, TinyModel

# not told by the file: llama.cpp has these numbers in its source
_N_OWN_CACHE = 20  # layers from here on read the cache of the last sliding or global layer before
_N_STREAMS = 4
_N_TOKEN_EMBD = 256  # of the embedding of a token that each layer has for itself
_LAUREL_RANK = 64

_DAMPING = 0.3  # of what a layer adds: two dozen layers would blow up the rounding errors of the first


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
