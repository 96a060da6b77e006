"""The engine on a GPU against the CPU. Skipped where no GPU is found; `tests/test_rpc.py` runs the same code there."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_runs import KINDS, MODES, SHARED, assert_same, measured, n_layers, read

from pytriattn import Llama, TriAttentionStats
from pytriattn._native import core

Tiny = Callable[[str], pathlib.Path]

GPUS = [device.name for device in core.device_list() if device.type in ("gpu", "igpu")]

pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU")


@pytest.mark.parametrize("cache", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("arch", [*KINDS, *SHARED])
def test_caches_on_the_gpu_and_split_with_the_cpu(tiny: Tiny, arch: str, cache: str) -> None:
    path = tiny(arch)
    expected = read(path, cache=cache)
    for layers in (-1, (n_layers(path) + 1) // 2):
        assert_same(read(path, layers, stats=expected.stats, cache=cache), expected, bit_for_bit=False)


@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode(tiny: Tiny, mode: str) -> None:
    path = tiny("llama")
    expected = read(path, mode=mode)
    for layers in (-1, 2):
        assert_same(read(path, layers, stats=expected.stats, mode=mode), expected, bit_for_bit=False)


@pytest.mark.parametrize("arch", [*KINDS, *SHARED])
def test_calibration(tiny: Tiny, arch: str) -> None:
    path = tiny(arch)
    found, expected = (measured(core.Model(str(path), layers)) for layers in (-1, 0))
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(ours.omega, theirs.omega)
        np.testing.assert_allclose(ours.centre, theirs.centre, atol=1e-2)
        np.testing.assert_allclose(ours.magnitude, theirs.magnitude, atol=1e-2)


def test_a_budget_lies_on_the_gpu_and_an_eviction_repeats(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    settings: dict[str, Any] = {"triattn_stats": smollm2_stats, "budget": 256, "n_ctx": 4096}
    texts = []
    with Llama(smollm2, n_gpu_layers=-1, **settings) as llm:
        prompt = llm.tokenize(long_text)[:1500]
        for _ in range(2):
            llm.reset()
            texts.append(list(llm.generate(prompt, max_tokens=300, temperature=0)))
        stats = llm.kv_stats()
        assert stats["evictions"] > 10
        assert set(stats["device_bytes"]) <= set(GPUS)
        assert sum(stats["device_bytes"].values()) == stats["kv_bytes"]
    assert texts[0] == texts[1]
