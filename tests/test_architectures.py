"""Eviction is exact on every architecture: the checks of `architecture_checks.py`, and what the engine finds in each model."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass, field
from typing import Any

import architecture_checks as checks
import numpy as np
import numpy.typing as npt
import pytest
from architecture_checks import BUDGET, INTERVAL, REFUSED, Case, Tiny
from tiny_models import ARCHITECTURES, make_tiny_model

from pytriattn import UnsupportedModelError
from pytriattn._native import core

CASES = [
    *(Case(arch) for arch in ARCHITECTURES if arch not in REFUSED),
    Case("phi3", n_ctx=512),
    Case("minicpm3", n_ctx=512),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_type = pytest.mark.parametrize(
    ("case", "cache_type"), [pytest.param(case, t, id=f"{case}-{t}") for case in CASES for t in case.types]
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("architectures")


@each_type
def test_scores_are_the_mean_future_logits(folder: pathlib.Path, case: Case, cache_type: str) -> None:
    error = checks.score_error(checks.load(case, folder), cache_type)
    assert error.largest <= 1e-3
    assert error.correlation >= 0.9999


@each_type
def test_evictions_move_rows_bit_for_bit(folder: pathlib.Path, case: Case, cache_type: str) -> None:
    misplaced = checks.misplaced_after_evictions(checks.load(case, folder), cache_type)
    assert len(misplaced) >= (5 if case.has_flash_attention else 3)
    assert not any(misplaced.values())


@each_type
def test_global_mode_is_llama_cpps_own_removal(folder: pathlib.Path, case: Case, cache_type: str) -> None:
    assert checks.global_mode_differs_by(checks.load(case, folder), cache_type) == 0


@each_case
def test_sequences_are_independent(folder: pathlib.Path, case: Case) -> None:
    same, difference = checks.sequences_differ_by(checks.load(case, folder))
    assert same
    assert difference < 2e-3


@each_type
def test_cells_and_bytes_are_what_the_budget_says(folder: pathlib.Path, case: Case, cache_type: str) -> None:
    found = checks.memory(checks.load(case, folder), cache_type)
    # budget and a step, or a window and a step, rounded up
    assert found.cells == (4096 if case.arch == "llama4" else 256)  # its window is 8192, whatever the file says
    assert found.full_bytes == found.expected_full_bytes > 0
    assert found.sliding_bytes == found.expected_sliding_bytes
    assert found.most_used == BUDGET + INTERVAL - 1


@pytest.mark.parametrize("arch", REFUSED)
def test_others_are_refused_with_the_reason(folder: pathlib.Path, arch: str) -> None:
    model = core.Model(str(make_tiny_model(arch, folder)))
    with pytest.raises(UnsupportedModelError, match=REFUSED[arch]):
        core.calibrate(model, checks.TOKENS[:64], n_ctx=64, n_ubatch=64, n_threads=1)
    # without a budget it works
    context = core.Context(model=model, n_ctx=256, n_threads=1)
    context.read(0, checks.TOKENS[:50], 0)
    assert np.isfinite(context.logits()).all()


# --- which layers, and what RoPE does to them ---


@dataclass(frozen=True)
class Facts:
    """What is known of a tiny model from how it was made and from the definition of its architecture."""

    full: tuple[int, ...]
    sliding: tuple[int, ...] = ()
    shared: dict[int, int] = field(default_factory=dict)
    """Layers without a cache of their own, and whose they read."""
    interleaved: bool = False
    n_rot: int = 32
    head_dim: int = 32
    rot_begin: int = 0
    nope: tuple[int, ...] = ()
    scale: float = 1.0


FACTS = {
    "llama": Facts((0, 1, 2), interleaved=True),
    "llama-ropefreqs": Facts((0, 1), interleaved=True, n_rot=64, head_dim=64),
    "llama-linear": Facts((0, 1), interleaved=True),
    "qwen2": Facts((0, 1, 2)),
    "qwen3": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "smollm3": Facts((0, 1, 2, 3), interleaved=True, n_rot=64, head_dim=64, nope=(3,)),
    "phi3": Facts((0, 1, 2), n_rot=24, scale=1.19),
    "glm4": Facts((0, 1, 2), interleaved=True, n_rot=16),
    "stablelm": Facts((0, 1, 2), n_rot=8),
    "gemma2": Facts((1, 3), (0, 2), n_rot=64, head_dim=64),
    "gemma3": Facts((2, 5), (0, 1, 3, 4), n_rot=96, head_dim=96),
    "gemma4": Facts((1, 3), (0, 2), {4: 2, 5: 3}, n_rot=64, head_dim=64),
    "qwen3moe": Facts((0, 1)),
    "gpt-oss": Facts((1, 3), (0, 2), n_rot=64, head_dim=64, scale=1 + 0.1 * np.log(4)),
    "llama4": Facts((3,), (0, 1, 2), interleaved=True, nope=(3,)),
    "deepseek2": Facts((0, 1, 2), interleaved=True, head_dim=128, rot_begin=96),
    "lfm2": Facts((1, 3)),
    "granitehybrid": Facts((1, 3), nope=(1, 3)),
    "falcon-h1": Facts((0, 1), n_rot=64, head_dim=64),
    "jamba": Facts((1, 3), nope=(1, 3)),
    "qwen35": Facts((1, 3), n_rot=16, head_dim=64),
    "qwen3next": Facts((1, 3), n_rot=8),
    "gemma3n": Facts(tuple(range(1, 20, 2)), tuple(range(0, 20, 2)), {20: 18, 21: 19}),
    "deepseek2-full": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "deepseek2-mtp": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "minicpm3": Facts((0, 1, 2), head_dim=96, rot_begin=64),
    "mistral4": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "kimi-linear": Facts((1, 3), head_dim=96, nope=(1, 3)),
    "bailingmoe3": Facts((1, 3), interleaved=True, head_dim=96, rot_begin=64),
    "plm": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "glm4moe": Facts((0, 1, 2), head_dim=64),
    "qwen35-mtp": Facts((1, 3), n_rot=16, head_dim=64),
    "bailingmoe2": Facts((0, 1, 2), n_rot=16),
    "exaone-moe": Facts((1, 3), (0, 2), nope=(1, 3)),
    "step35": Facts((1, 3), (0, 2), head_dim=64),
    "mimo2": Facts((1, 3), (0, 2), head_dim=96),
    "lfm2moe": Facts((1, 3)),
    "granitehybrid-moe": Facts((1, 3), interleaved=True),
    "nemotron_h": Facts((1, 4), head_dim=64, nope=(1, 4)),
    "nemotron_h_moe": Facts((1, 4), nope=(1, 4)),
    "plamo2": Facts((1, 3)),
    "qwen35moe": Facts((1, 3), n_rot=16, head_dim=64),
    "mistral3": Facts((0, 1, 2), interleaved=True, n_rot=64, head_dim=64),
    "talkie": Facts((0, 1, 2)),
}


def nodes_of(tiny: Tiny, **options: Any) -> dict[int, Any]:
    return {node.layer: node for node in tiny.context("recent", **options).attention()}


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch not in REFUSED])
def test_layers_and_rotations_are_found(folder: pathlib.Path, arch: str) -> None:
    facts, nodes = FACTS[arch], nodes_of(checks.load(Case(arch), folder))
    assert sorted(nodes) == sorted([*facts.full, *facts.sliding, *facts.shared])
    for layer, node in nodes.items():
        assert node.owner == facts.shared.get(layer, layer)
        assert node.sliding == (node.owner in facts.sliding)
        if layer in facts.nope:
            assert node.n_rot == 0
            assert node.operator is None
        else:
            assert node.interleaved == facts.interleaved
            assert np.isclose(node.scale, facts.scale, rtol=1e-6)
        if not node.sliding:
            assert node.head_dim == facts.head_dim
        if not node.sliding and layer not in facts.nope:
            assert (node.rot_begin, node.n_rot) == (facts.rot_begin, facts.n_rot)
    # statistics have one entry for each cache that is evicted from, with the heads of all layers that read it
    stats = {layer.layer: layer for layer in checks.load(Case(arch), folder).stats.layers}
    assert sorted(stats) == list(facts.full)
    for owner, layer in stats.items():
        assert layer.n_head == sum(node.n_head for node in nodes.values() if node.owner == owner)


def plain(base: float, n_rot: int) -> npt.NDArray[np.float64]:
    return base ** (-2.0 * np.arange(n_rot // 2) / n_rot)


def yarn(base: float, n_rot: int, factor: float, original: int) -> npt.NDArray[np.float64]:
    """YaRN (arXiv 2309.00071): fast bands keep their frequency, slow ones are slowed down by the factor, a ramp between."""

    def band(turns: float) -> float:
        return n_rot * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))

    low, high = max(0, np.floor(band(32))), min(n_rot - 1, np.ceil(band(1)))
    ramp = 1 - np.clip((np.arange(n_rot // 2) - low) / max(0.001, high - low), 0, 1)
    omega = plain(base, n_rot)
    return omega / factor * (1 - ramp) + omega * ramp


GEMMA4_FREE = np.where(np.arange(32) < 8, 1.0, 0.0)
OMEGA: dict[str, dict[int, npt.NDArray[np.float64]]] = {
    "llama": {0: plain(1e4, 32)},
    "llama-ropefreqs": {0: plain(5e5, 64) / np.interp(np.arange(32), [8, 20], [1.0, 8.0])},
    "llama-linear": {0: plain(1e4, 32) / 4},
    "smollm3": {0: plain(2e6, 64), 2: plain(2e6, 64)},
    "phi3": {0: plain(1e4, 24) / np.geomspace(1.0, 16.0, 12)},
    "phi3-512": {0: plain(1e4, 24) / np.linspace(1.0, 1.5, 12)},
    "glm4": {0: plain(1e4, 16)},
    "gemma3": {0: plain(1e4, 96), 2: plain(1e6, 96)},
    "gemma4": {0: plain(1e4, 32), 3: plain(1e6, 64) * GEMMA4_FREE, 5: plain(1e6, 64) * GEMMA4_FREE},
    "gpt-oss": {0: yarn(150000.0, 64, 4, 512), 1: yarn(150000.0, 64, 4, 512)},
    "deepseek2": {0: plain(1e4, 32)},
    "deepseek2-full": {0: yarn(1e4, 32, 4, 512)},
    "qwen35": {1: plain(1e7, 16)},
}


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in OMEGA], ids=str)
def test_frequencies_are_those_of_the_definition(folder: pathlib.Path, case: Case) -> None:
    nodes = nodes_of(checks.load(case, folder))
    for layer, omega in OMEGA[str(case)].items():
        node = nodes[layer]
        first = node.rot_begin // 2
        np.testing.assert_allclose(node.omega[first : first + node.n_rot // 2], omega, rtol=2e-5, atol=1e-7)
        assert not np.delete(node.omega, np.arange(first, first + node.n_rot // 2)).any()


@functools.cache
def overrides(**values: float | str) -> Any:
    return core.RopeOverrides(**values)


@pytest.mark.parametrize(
    ("rope", "omega", "scale"),
    [
        ({"freq_base": 5e4}, plain(5e4, 64), 1.0),
        ({"freq_scale": 0.25}, plain(1e6, 64) / 4, 1.0),
        ({"freq_scale": 0.25, "scaling": "none"}, plain(1e6, 64), 1.0),
        (
            {
                "freq_scale": 0.25,
                "scaling": "yarn",
                "yarn_orig_ctx": 512,
                "yarn_beta_fast": 32.0,
                "yarn_beta_slow": 1.0,
            },
            yarn(1e6, 64, 4, 512),
            1 + 0.1 * np.log(4),
        ),
    ],
    ids=["base", "linear", "none", "yarn"],
)
def test_overrides_are_followed(folder: pathlib.Path, rope: dict, omega: npt.NDArray[np.float64], scale: float) -> None:
    """Statistics are of the model as it is; scores rotate as the context does."""
    tiny = checks.load(Case("qwen3"), folder)
    node = nodes_of(tiny, rope=overrides(**rope))[0]
    np.testing.assert_allclose(node.omega, omega, rtol=2e-5)
    assert np.isclose(node.scale, scale, rtol=1e-6)
    error = checks.score_error(tiny, "f16", rope=overrides(**rope))
    assert error.largest <= 1e-3
    assert error.correlation >= 0.9999
    # and these are other scores than without
    scores = []
    for options in ({}, {"rope": overrides(**rope)}):
        context = tiny.context("per_layer_head", use_norm=False, **options)
        context.read(0, checks.TOKENS[:100], 0)
        scores.append(context.scores()[0])
    changed = rope.get("scaling") != "none"
    assert (np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1] < 0.999) == changed
