"""The engine on a GPU against the CPU. Skipped where no GPU is found; `test_rpc.py` runs the same code there."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn import Llama, TriAttentionStats
from pytriattn._native import core
from support import kv3
from support.architecture_checks import WHOLE_KV3_BLOCKS
from support.engine_runs import KINDS, MODES, SHARED, measured, n_layers, read
from support.tiny_context import Tiny

GPUS = [device.name for device in core.device_list() if device.type in ("gpu", "igpu")]

pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU")


def used_rows(context: Any, layer: int, value: bool) -> npt.NDArray[np.uint8]:
    """Return the stored rows of the cells in use, by position: [n_keys, bytes]."""
    rows = np.frombuffer(core.testing.cache_rows(context, 0, layer, value), np.uint8)
    slots = [cell.slot for cell in core.testing.cells(context)]
    return rows.reshape(context.counters().cells_allocated, -1)[slots]


def errors_after_steps(cpu: Any, others: Sequence[Any], tokens: Sequence[int]) -> list[float]:
    """Step over tokens everywhere; return how far the others' logits are from the CPU's in the end, relative to their
    length.
    """
    for token in tokens:
        for context in (cpu, *others):
            context.step([0], [token])
    return [float(np.linalg.norm(other.logits() - cpu.logits()) / np.linalg.norm(cpu.logits())) for other in others]


def evict_everywhere(path: pathlib.Path, mode: str, cache: str) -> None:
    """Evict three times from the same cache on the CPU, on the GPU and split between them; then read on.

    Each time the CPU's cache is copied to the others: what a model computes differs by device, in half precision or
    TF32, and soon other keys would be kept. For the same reason logits have to be as close after an eviction as they
    are without one.
    """
    models = [core.Model(str(path), layers) for layers in (0, -1, (n_layers(path) + 1) // 2)]
    stats, eviction = measured(models[0]), core.EvictionConfig(mode=mode, budget=96, interval=64, window=16, seed=5)
    options: dict[str, Any] = {"n_ctx": 1024, "n_threads": 2, "type_k": cache, "type_v": cache}
    cpu, *others = (core.Context(model, core.DecoderParams(eviction=eviction, **options), stats) for model in models)
    tokens = np.random.default_rng(7).integers(0, 250, 150, dtype=np.int32)
    cpu.read(seq=0, tokens=tokens[:100])
    for _ in range(3):
        cpu.read(seq=0, tokens=tokens[100:140])
        state = cpu.save()
        for context in others:
            context.load(state)
            for found, expected in zip(core.testing.scores(context), core.testing.scores(cpu), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))
        before = errors_after_steps(cpu, others, tokens[140:143].tolist())
        for context in (cpu, *others):
            context.load(state)
            context.evict()
        for context in others:
            for layer in cpu.layers:
                of = layer.layer
                for head in range(layer.n_head_kv):
                    np.testing.assert_array_equal(context.kept_positions(0, of, head), cpu.kept_positions(0, of, head))
                for value in (False, True) if layer.head_dim_v else (False,):
                    np.testing.assert_array_equal(used_rows(context, of, value), used_rows(cpu, of, value))
        after = errors_after_steps(cpu, others, tokens[140:143].tolist())
        assert all(b < 3 * a + 1e-2 for a, b in zip(before, after, strict=True)), (before, after)


@pytest.mark.parametrize("cache", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "kv3"])
@pytest.mark.parametrize("arch", [*KINDS, *SHARED])
def test_the_same_keys_are_kept_and_moved_bit_for_bit(tiny: Tiny, arch: str, cache: str) -> None:
    if cache == "kv3" and arch not in WHOLE_KV3_BLOCKS:
        pytest.skip("kv3 does not fit the heads of this model")
    evict_everywhere(tiny(arch), MODES[0], cache)


@pytest.mark.parametrize("types", [("kv3", "kv3"), ("q8_0", "kv3"), ("kv3", "q8_0")])
def test_kv3_rows_and_attention_are_those_of_the_cpu(tiny: Tiny, types: tuple[str, str]) -> None:
    """A value beside a cut between two levels may fall to the other one where keys are computed in half precision."""
    tokens = np.random.default_rng(7).integers(0, 250, 120, dtype=np.int32)
    params = core.DecoderParams(n_ctx=512, n_threads=2, type_k=types[0], type_v=types[1], flash_attn="on")
    cpu, gpu = (core.Context(core.Model(str(tiny("qwen3")), layers), params, None) for layers in (0, -1))
    for context in (cpu, gpu):
        context.read(0, tokens)
    for value in (False, True):
        if types[value] == "kv3":
            found, expected = (kv3.decode(used_rows(context, 0, value)) for context in (gpu, cpu))
            assert ((found - expected) ** 2).mean() < 0.01 * (expected**2).mean()
    gpu.load(cpu.save())  # from here on, the same cache
    assert errors_after_steps(cpu, [gpu], [1, 2, 3])[0] < 0.05


@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode(tiny: Tiny, mode: str) -> None:
    evict_everywhere(tiny("llama"), mode, "f16")


@pytest.mark.parametrize("cache", ["f16", "q8_0", "q4_0", "kv3"])
@pytest.mark.parametrize("arch", ["qwen3", "gemma3"])
def test_fitted_keeps_nearly_the_keys_of_the_cpu(tiny: Tiny, arch: str, cache: str) -> None:
    """Attention is computed in another precision, so that keys of nearly the same worth may change places."""
    if cache == "kv3" and arch not in WHOLE_KV3_BLOCKS:
        pytest.skip("kv3 does not fit the heads of this model")
    expected = read(tiny(arch), mode="fitted", cache=cache)
    found = read(tiny(arch), -1, stats=expected.stats, mode="fitted", cache=cache)
    for ours, theirs in zip(found.kept, expected.kept, strict=True):
        assert len(ours) == len(theirs)
        assert len(set(ours) & set(theirs)) >= 0.8 * len(theirs)


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
    settings: dict[str, Any] = {"triattn_stats": smollm2_stats, "budget": 128, "interval": 32, "n_ctx": 1024}
    texts = []
    with Llama(smollm2, n_gpu_layers=-1, **settings) as llm:
        prompt = llm.tokenize(long_text)[:300]
        for _ in range(2):
            llm.reset()
            texts.append(list(llm.generate(prompt, max_tokens=40, temperature=0)))
        stats = llm.kv_stats()
        assert stats["evictions"] >= 6
        assert set(stats["device_bytes"]) <= set(GPUS)
        assert sum(stats["device_bytes"].values()) == stats["kv_bytes"]
    assert texts[0] == texts[1]
