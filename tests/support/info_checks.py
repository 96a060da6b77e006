"""What tests of metadata share: every tiny model and the real ones, and the contexts that the engine makes of them."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from models.real import fetch
from models.registry import ARCHITECTURES, make_tiny_model
from pytriattn._native import core
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind, RopeInfo

REAL = ("smollm2", "gemma3")
NAMES = [*ARCHITECTURES, *(f"real-{name}" for name in REAL)]
NOT_VIEWED = {"lfm2-sliding", "minimax-m3"}
"""Models whose cache the engine refuses to look into."""

SETTINGS: list[dict[str, Any]] = [
    {"ctx": 512},
    {"ctx": 1000, "flash_attn": False},
    {"ctx": 3000, "type_k": "q4_1", "type_v": "q4_1", "n_ubatch": 100},
    {"ctx": 2048, "type_k": "q8_0", "type_v": "q8_0", "parallel": 2},
    {"ctx": 4096, "budget": 96, "interval": 32, "type_k": "f32", "type_v": "f32"},
    {"ctx": 20000, "budget": 3000, "n_ubatch": 64, "n_batch": 100, "type_k": "bf16", "type_v": "bf16"},
    {"ctx": 4096, "budget": 1000, "parallel": 2, "type_k": "q5_0", "type_v": "q5_0"},
    {"ctx": 2048, "budget": 100, "prefill": "full", "n_ubatch": 128, "flash_attn": False},
]
"""Combinations that every architecture is tried with. Latent attention wants the same type for K and V."""


def path_of(name: str, folder: pathlib.Path) -> pathlib.Path:
    return fetch(name.removeprefix("real-")) if name.startswith("real-") else make_tiny_model(name, folder)


def load(path: pathlib.Path, n_ctx: int) -> Any:
    model = core.Model(str(path))
    if 0 < model.long_rope_threshold < n_ctx:
        model.use_long_rope()  # as `Llama` does
    return model


def make_context(path: pathlib.Path, values: dict[str, Any], *, kv_unified: bool = False) -> Any:
    """Make the context that `Llama` would make with the arguments of `ModelInfo.kv_bytes`."""
    values = dict(values)
    budget, interval = values.pop("budget", None), values.pop("interval", 128)
    eviction = None
    if budget is not None:
        eviction = core.EvictionConfig(mode="recent", budget=budget, interval=interval, window=min(16, budget - 5))
    n_ctx = values.pop("ctx")
    return core.Context(
        load(path, n_ctx),
        core.DecoderParams(
            n_ctx=n_ctx,
            n_seq_max=values.pop("parallel", 1),
            full_prefill=values.pop("prefill", "chunked") == "full",
            flash_attn="auto" if values.pop("flash_attn", True) else "off",
            eviction=eviction,
            kv_unified=kv_unified,
            **values,
        ),
    )


def slides(info: ModelInfo, layer: LayerInfo) -> bool:
    return info.layers[layer.owner].kind is LayerKind.SLIDING


def check_rope(rope: RopeInfo, node: Any, n_ctx: int) -> None:
    assert (rope.rot_begin, rope.n_rot, rope.interleaved) == (node.rot_begin, node.n_rot, node.interleaved)
    omega = rope.omega(n_ctx)
    assert omega.shape == (rope.head_dim // 2,)
    np.testing.assert_allclose(omega, node.omega, rtol=2e-5, atol=1e-7)
    assert np.isclose(rope.scale, node.scale, rtol=1e-6)
    operator = node.operator
    for name in ("freq_base", "freq_scale", "ext_factor", "attn_factor"):
        assert np.isclose(getattr(rope, name), operator[name], rtol=1e-6), name
    assert {"norm": 0, "neox": 2, "mrope": 8, "imrope": 40}[rope.mode] == operator["mode"]
    assert list(rope.sections) == (operator["sections"] if rope.sections else [])
    is_long = rope.long_factors is not None and n_ctx > rope.n_ctx_orig
    factors = rope.long_factors if is_long else rope.factors
    np.testing.assert_array_equal(operator["freq_factors"][: rope.n_rot // 2], [] if factors is None else factors)
