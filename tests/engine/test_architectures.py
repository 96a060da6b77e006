"""Eviction is exact on every architecture: the checks of `architecture_checks.py`, and what the engine finds in each
model.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.registry import ARCHITECTURES, make_tiny_model
from pytriattn import ContextError, UnsupportedModelError
from pytriattn._native import core
from pytriattn.model_info.reader import gguf_info
from support import architecture_checks as checks
from support.architecture_checks import BUDGET, INTERVAL, LONG_ROPE, REAL, REFUSED, TYPES, Case, Loaded
from support.architecture_facts import FACTS, OMEGA, plain, yarn
from support.typical import TYPICAL, marked

CASES = [
    *(Case(arch) for arch in ARCHITECTURES if arch not in REFUSED),
    *(Case(arch, n_ctx=512) for arch in LONG_ROPE),
    *(Case(name) for name in REAL),
]
RUNS = [(case, cache_type) for case in CASES for cache_type in case.types]


@pytest.mark.slow
def test_models_that_kv3_fits(tiny_folder: pathlib.Path) -> None:
    fitting = set()
    for arch in set(ARCHITECTURES) - set(REFUSED):
        with contextlib.suppress(ContextError):
            gguf_info(make_tiny_model(arch, tiny_folder)).kv_bytes(512, type_k="kv3", type_v="kv3")
            fitting.add(arch)
    assert (fitting | set(REAL)) - {"deepseek2"} == checks.WHOLE_KV3_BLOCKS


def is_quick(run: Case | tuple[Case, str]) -> bool:
    case, cache_type = run if isinstance(run, tuple) else (run, TYPES[0])
    return case.arch in TYPICAL and cache_type == TYPES[0]


def each(runs: list[tuple[Case, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("case", "cache_type"), marked(runs, is_quick), ids=str)


@each([(case, cache_type) for case, cache_type in RUNS if not case.is_biased_by_distance])
def test_scores_are_the_mean_future_logits(tiny_folder: pathlib.Path, case: Case, cache_type: str) -> None:
    error = checks.score_error(checks.load(case, tiny_folder), cache_type)
    assert error.largest <= 1e-3
    assert error.correlation >= 0.9999


@each(RUNS)
def test_evictions_move_rows_bit_for_bit(tiny_folder: pathlib.Path, case: Case, cache_type: str) -> None:
    misplaced = checks.misplaced_after_evictions(checks.load(case, tiny_folder), cache_type)
    assert len(misplaced) >= (1 if case.is_biased_by_distance else 5 if case.has_flash_attention else 3)
    assert not any(misplaced.values())


@each(RUNS)
def test_freeing_cells_is_llama_cpps_own_removal(tiny_folder: pathlib.Path, case: Case, cache_type: str) -> None:
    assert checks.removal_differs_by(checks.load(case, tiny_folder), cache_type) == 0


@pytest.mark.parametrize("case", marked([case for case in CASES if case.arch not in REAL], is_quick), ids=str)
def test_sequences_are_independent(tiny_folder: pathlib.Path, case: Case) -> None:
    same, difference = checks.sequences_differ_by(checks.load(case, tiny_folder))
    assert same
    assert difference < 2e-3


@each(RUNS)
def test_cells_and_bytes_are_what_the_budget_says(tiny_folder: pathlib.Path, case: Case, cache_type: str) -> None:
    found = checks.memory(checks.load(case, tiny_folder), cache_type)
    assert found.cells == found.expected_cells
    assert found.full_bytes == found.expected_full_bytes > 0
    assert found.sliding_bytes == found.expected_sliding_bytes
    assert found.most_used == BUDGET + INTERVAL - 1


@pytest.mark.parametrize("arch", REFUSED)
def test_others_are_refused_with_the_reason(tiny_folder: pathlib.Path, arch: str) -> None:
    model = core.Model(str(make_tiny_model(arch, tiny_folder)))
    with pytest.raises(UnsupportedModelError, match=REFUSED[arch]):
        core.calibrate(model, checks.TOKENS[:64], n_ctx=64, n_ubatch=64, n_threads=1)
    # without a budget it works
    context = core.Context(model, core.DecoderParams(n_ctx=256, n_threads=1))
    context.read(0, checks.TOKENS[:50], 0)
    assert np.isfinite(context.logits()).all()


# --- which layers, and what RoPE does to them ---


def nodes_of(loaded: Loaded, **options: Any) -> dict[int, Any]:
    return {node.layer: node for node in loaded.context("recent", **options).attention()}


@pytest.mark.parametrize("arch", marked(arch for arch in ARCHITECTURES if arch not in REFUSED))
def test_layers_and_rotations_are_found(tiny_folder: pathlib.Path, arch: str) -> None:
    facts, nodes = FACTS[arch], nodes_of(checks.load(Case(arch), tiny_folder))
    assert sorted(nodes) == sorted([*facts.full, *facts.sliding, *facts.shared])
    for layer, node in nodes.items():
        assert node.owner == facts.shared.get(layer, layer)
        assert node.sliding == (node.owner in facts.sliding)
        if layer in facts.nope:
            assert node.n_rot == 0
            assert node.operator is None
        else:
            assert node.interleaved == facts.interleaved
            scale = facts.sliding_scale if node.sliding and facts.sliding_scale is not None else facts.scale
            assert np.isclose(node.scale, scale, rtol=1e-6)
        if not node.sliding:
            assert node.head_dim == facts.head_dim
        if not node.sliding and layer not in facts.nope:
            assert (node.rot_begin, node.n_rot) == (facts.rot_begin, facts.n_rot)
    # statistics have one entry for each cache that is evicted from, with the heads of all layers that read it
    stats = {layer.layer: layer for layer in checks.load(Case(arch), tiny_folder).stats.layers}
    assert sorted(stats) == list(facts.full)
    for owner, measured in stats.items():
        assert measured.n_head == sum(node.n_head for node in nodes.values() if node.owner == owner)


@pytest.mark.parametrize("case", marked([case for case in CASES if str(case) in OMEGA], is_quick), ids=str)
def test_frequencies_are_those_of_the_definition(tiny_folder: pathlib.Path, case: Case) -> None:
    nodes = nodes_of(checks.load(case, tiny_folder))
    for layer, omega in OMEGA[str(case)].items():
        node = nodes[layer]
        first = node.rot_begin // 2
        np.testing.assert_allclose(node.omega[first : first + node.n_rot // 2], omega, rtol=2e-5, atol=1e-7)
        assert not np.delete(node.omega, np.arange(first, first + node.n_rot // 2)).any()


@functools.cache
def overrides(**values: float | str) -> Any:
    return core.RopeOverrides(**values)


UNROTATED = core.RopeOverrides(scaling="linear", freq_scale=1e-9, yarn_ext_factor=0.0)


@pytest.mark.parametrize("case", marked([case for case in CASES if case.arch not in REAL], is_quick), ids=str)
def test_statistics_are_of_queries_before_rope(tiny_folder: pathlib.Path, case: Case) -> None:
    """RoPE slowed down to nothing leaves the first attention layer's own queries as they are."""
    loaded = checks.load(case, tiny_folder)
    first = min(nodes_of(loaded))
    own = loaded.stats.layers[0]
    if own.layer != first:
        pytest.skip("sliding layers come first, and what they attend to depends on RoPE")
    unrotated = core.calibrate(
        loaded.model, checks.CALIBRATION, n_ctx=256, n_ubatch=128, n_threads=1, rope=UNROTATED
    ).layers[0]
    assert np.abs(unrotated.omega).max() < 1e-8
    size = np.abs(unrotated.centre).max()
    np.testing.assert_allclose(own.centre, unrotated.centre, atol=2e-4 * size)
    np.testing.assert_allclose(own.magnitude, unrotated.magnitude, atol=2e-4 * unrotated.magnitude.max())
    if own.n_rot:  # and they would be others with RoPE left in
        rotated = [core.testing.rotate(own, head.astype(np.float64), 100.0) for head in own.centre]
        assert np.abs(rotated - unrotated.centre).max() > 0.05 * size


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
def test_overrides_are_followed(
    tiny_folder: pathlib.Path, rope: dict, omega: npt.NDArray[np.float64], scale: float
) -> None:
    """Statistics are of the model as it is; scores rotate as the context does."""
    tiny = checks.load(Case("qwen3"), tiny_folder)
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
        scores.append(core.testing.scores(context)[0])
    changed = rope.get("scaling") != "none"
    assert (np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1] < 0.999) == changed
