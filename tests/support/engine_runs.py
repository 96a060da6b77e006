"""Reading a text under a budget on some devices, and holding it against the same on the CPU: for tests of other
devices.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from support.tiny_context import calibrated

__all__ = ["KINDS", "MODES", "SHARED", "Run", "assert_same", "measured", "n_layers", "read"]

MODES = ("per_layer_head", "per_head", "per_layer", "global", "recent", "random")
# a plain cache, sliding windows beside it, a latent cache, a recurrent state beside it
KINDS = ("llama", "gemma3", "deepseek2-full", "qwen35")
# readers of another layer's cache: a split between them puts a copy in between
SHARED = ("gemma4", "nanbeige", "hrm_text")


@dataclass
class Run:
    """What reading a text under a budget leaves behind."""

    stats: Any
    logits: npt.NDArray[np.float32]
    kept: list[list[int]]
    rows: list[bytes]


def measured(model: Any) -> Any:
    """Return statistics of a model's queries over random tokens."""
    tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
    return core.calibrate(model, tokens, n_ctx=256, n_ubatch=128, n_threads=2)


def read(
    path: pathlib.Path,
    layers: int = 0,
    servers: Sequence[str] = (),
    *,
    stats: Any = None,
    mode: str = MODES[0],
    cache: str = "f16",
) -> Run:
    """Read a text with so many layers on devices other than the CPU; -1: all."""
    model = core.Model(str(path), layers, rpc_servers=servers)
    stats = stats or (calibrated(model, fit=True) if mode == "fitted" else measured(model))
    eviction = core.EvictionConfig(mode=mode, budget=96, interval=32, window=16, seed=5)
    context = core.Context(
        model, core.DecoderParams(n_ctx=1024, n_threads=2, type_k=cache, type_v=cache, eviction=eviction), stats
    )
    half = np.random.default_rng(7).integers(0, 250, 150, dtype=np.int32)
    tokens = np.concatenate([half, half])
    for i in range(0, len(tokens), 30):
        context.read(seq=0, tokens=tokens[i : i + 30], n_protected=0)
    return Run(
        stats,
        np.array(context.logits(-1)),
        [context.kept_positions(0, of.layer, head).tolist() for of in context.layers for head in range(of.n_head_kv)],
        [
            core.testing.cache_rows(context, 0, of.layer, is_v)
            for of in context.layers
            for is_v in ((False, True) if of.head_dim_v else (False,))
        ],
    )


def n_layers(path: pathlib.Path) -> int:
    """Count a model's layers."""
    return int(core.Model(str(path), 0).n_layer)


def assert_same(run: Run, expected: Run) -> None:
    """Assert that both keep the same keys, predict the same, and have the same bytes in their caches."""
    assert run.kept == expected.kept
    np.testing.assert_allclose(run.logits, expected.logits, atol=1e-2)
    assert run.rows == expected.rows
