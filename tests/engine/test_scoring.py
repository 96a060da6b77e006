"""The score of a key is the mean future logit that the model itself would compute."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pytriattn import LayerStats, StatsError, TriAttentionStats
from pytriattn._native import core
from pytriattn.eviction.steps import DEFAULT_OFFSETS, score_keys, synthetic_query


def random_layer(
    rng: np.random.Generator, *, n_rot: int, interleaved: bool, head_dim: int = 32, scale: float = 1.0
) -> LayerStats:
    centre = rng.normal(size=(4, head_dim)).astype(np.float32)
    omega = np.zeros(head_dim // 2)
    omega[: n_rot // 2] = 10000.0 ** (-np.arange(n_rot // 2) / max(1, n_rot // 2))
    layer = LayerStats(
        layer=0,
        n_head=4,
        n_head_kv=2,
        rot_begin=0,
        n_rot=n_rot,
        interleaved=interleaved,
        scale=scale,
        omega=omega,
        centre=centre,
        magnitude=np.ones((4, head_dim // 2), dtype=np.float32),
    )
    dims = layer.to_native().band_dims
    lengths = np.hypot(centre[:, dims[:, 0]], centre[:, dims[:, 1]])
    return replace(layer, magnitude=(lengths * rng.uniform(1.0, 2.0, lengths.shape)).astype(np.float32))


LAYOUTS = [(n_rot, interleaved) for n_rot in (0, 8, 24, 32) for interleaved in (False, True)]


@pytest.mark.parametrize(("n_rot", "interleaved"), LAYOUTS)
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_the_synthetic_query_is_the_mean_of_rotated_centres(n_rot: int, interleaved: bool, scale: float) -> None:
    layer = random_layer(np.random.default_rng(1), n_rot=n_rot, interleaved=interleaved, scale=scale)
    native, position = layer.to_native(), 777
    expected = [
        np.mean(
            [core.testing.rotate(native, head.astype(np.float64), position + offset) for offset in DEFAULT_OFFSETS],
            axis=0,
        )
        for head in layer.centre
    ]
    np.testing.assert_allclose(synthetic_query(layer, position), expected, atol=1e-6)


@pytest.mark.parametrize(("n_rot", "interleaved"), LAYOUTS)
def test_rotation_keeps_lengths_and_depends_on_differences_alone(n_rot: int, interleaved: bool) -> None:
    rng = np.random.default_rng(2)
    native = random_layer(rng, n_rot=n_rot, interleaved=interleaved).to_native()
    q, k = rng.normal(size=(2, 32))
    assert np.isclose(np.linalg.norm(core.testing.rotate(native, q, 123.0)), np.linalg.norm(q))
    assert np.isclose(
        core.testing.rotate(native, q, 50.0) @ core.testing.rotate(native, k, 20.0),
        core.testing.rotate(native, q, 1050.0) @ core.testing.rotate(native, k, 1020.0),
    )


@pytest.mark.parametrize(("n_rot", "interleaved"), LAYOUTS)
@pytest.mark.parametrize("head_dim", [32, 80])
def test_the_graph_and_the_host_function_agree(n_rot: int, interleaved: bool, head_dim: int) -> None:
    """Devices run the graph, the CPU a function of ours."""
    rng = np.random.default_rng(3)
    layer = random_layer(rng, n_rot=n_rot, interleaved=interleaved, head_dim=head_dim)
    keys = rng.normal(size=(57, 2, head_dim)).astype(np.float32)
    found = [
        core.score_keys(layer.to_native(), keys, 100, list(DEFAULT_OFFSETS), True, True, True, on_host=on_host)
        for on_host in (False, True)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_both_parts_of_the_score_against_numpy() -> None:
    rng = np.random.default_rng(4)
    layer = random_layer(rng, n_rot=24, interleaved=False)
    keys = rng.normal(size=(20, 2, 32)).astype(np.float32)
    query, dims = synthetic_query(layer, 100), layer.to_native().band_dims
    trig = np.stack([keys[:, head // 2] @ query[head] for head in range(4)])
    weights = (1 - layer.concentration()) * layer.magnitude
    lengths = np.hypot(keys[..., dims[:, 0]], keys[..., dims[:, 1]])
    norm = np.stack([lengths[:, head // 2] @ weights[head] for head in range(4)])
    np.testing.assert_allclose(score_keys(layer, keys, 100), trig + norm, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score_keys(layer, keys, 100, use_norm=False), trig, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score_keys(layer, keys, 100, use_trig=False), norm, rtol=1e-4, atol=1e-4)


def test_bands_without_rotation_can_be_left_out() -> None:
    layer = random_layer(np.random.default_rng(5), n_rot=0, interleaved=False)
    keys = np.random.default_rng(6).normal(size=(5, 2, 32)).astype(np.float32)
    assert np.abs(score_keys(layer, keys, 9)).max() > 0.1
    assert not score_keys(layer, keys, 9, use_unrotated=False).any()


@pytest.mark.parametrize(
    "arch", ["llama", "llama-ropefreqs", "qwen3", "gemma3", "glm4", "stablelm", "smollm3", "gemma4", "phi3"]
)
def test_statistics_rotate_as_the_model_does(tiny: Callable[[str], pathlib.Path], arch: str) -> None:
    """The same token at every position: up to RoPE its key is the same, so undoing RoPE leaves nothing to vary.

    The first layer with full attention is compared with float32 keys as the cache stores them.
    """
    model = core.Model(str(tiny(arch)))
    stats = core.calibrate(model, np.arange(64, dtype=np.int32), n_ctx=64, n_ubatch=64, n_threads=2)
    context = core.Context(model, core.DecoderParams(n_ctx=256, n_threads=2, type_k="f32", type_v="f16"))
    context.read(0, np.full(200, 7, dtype=np.int32), 0)
    layer = context.layers[0]
    rows = np.frombuffer(core.testing.cache_rows(context, 0, layer.layer, False), dtype=np.float32)
    keys = rows.reshape(-1, layer.n_head_kv, layer.head_dim_k)
    slots = {cell.position: cell.slot for cell in core.testing.cells(context)}
    native = stats.layers[0]
    undone = np.stack([core.testing.rotate(native, keys[slots[p], 0].astype(np.float64), -p) for p in range(200)])
    spread = np.abs(undone - undone.mean(axis=0)).max() / np.abs(undone).max()
    raw = np.abs(keys[[slots[p] for p in range(200)], 0] - undone.mean(axis=0)).max() / np.abs(undone).max()
    assert spread < 2e-2
    if native.n_rot:
        assert raw > 10 * spread  # it is RoPE that was undone


@pytest.mark.slow
def test_real_models(smollm2_stats: TriAttentionStats, gemma3_stats: TriAttentionStats) -> None:
    """Facts of SmolLM2 (neighbouring pairs, 30 layers) and of Gemma 3 270M (halves, 3 of 18 layers are global)."""
    assert [layer.layer for layer in smollm2_stats.layers] == list(range(30))
    for layer in smollm2_stats.layers:
        assert (layer.n_head, layer.n_head_kv, layer.head_dim, layer.n_rot, layer.interleaved) == (9, 3, 64, 64, True)
        np.testing.assert_allclose(layer.omega, 100000.0 ** (-np.arange(32) / 32), rtol=1e-5)
    assert [layer.layer for layer in gemma3_stats.layers] == [5, 11, 17]
    for layer in gemma3_stats.layers:
        assert (layer.n_head, layer.n_head_kv, layer.head_dim, layer.n_rot, layer.interleaved) == (
            4,
            1,
            256,
            256,
            False,
        )
        np.testing.assert_allclose(layer.omega, 1000000.0 ** (-np.arange(128) / 128), rtol=1e-5)
    for stats in (smollm2_stats, gemma3_stats):
        assert all(((r >= 0) & (r <= 1)).all() for r in stats.concentration().values())
        assert 0.4 < stats.mean_concentration() < 0.95


def test_wrong_shapes_are_refused() -> None:
    layer = random_layer(np.random.default_rng(0), n_rot=32, interleaved=False)
    with pytest.raises(StatsError, match=r"keys has the shape \[5, 3, 32\], it must be \[n_keys, 2, 32\]"):
        score_keys(layer, np.zeros((5, 3, 32)), 0)
    with pytest.raises(StatsError):
        score_keys(replace(layer, centre=layer.centre[:, :-2]), np.zeros((5, 2, 32)), 0)
    with pytest.raises(StatsError):
        score_keys(replace(layer, n_rot=34), np.zeros((5, 2, 32)), 0)
    with pytest.raises(StatsError, match="not finite"):
        score_keys(replace(layer, centre=layer.centre * np.nan), np.zeros((5, 2, 32)), 0)
    with pytest.raises(ValueError, match="offset"):
        score_keys(layer, np.zeros((5, 2, 32)), 0, [])
