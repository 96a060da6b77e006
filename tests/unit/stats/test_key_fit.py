"""Fitting the attention that keys can expect."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from models.registry import make_tiny_model
from pytriattn import StatsWarning, TriAttentionStats, calibrate
from pytriattn.stats import sidecar as sidecar_module
from pytriattn.stats.bundled import bundled_text
from pytriattn.stats.key_fit import RIDGES, KeyFitter
from support.made_stats import without_fit


def made(n: int, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = np.concatenate([np.ones((n, 1)), random.normal(size=(n, 6)) * [1, 2, 0.1, 3, 1, 0] + 5], axis=1)
    weights = np.array([-2.0, 0.5, -0.3, 4.0, 0.0, 0.2, 0.0])
    return x.astype(np.float32), (x @ weights + noise * random.normal(size=n)).astype(np.float32), weights


def test_ridge_regression_piece_by_piece() -> None:
    """The same as all at once, by the textbook's formula; a feature that never changes gets no weight."""
    x, y, _ = made(2000)
    pieces = KeyFitter()
    for begin in range(0, 2000, 320):  # whole blocks of held-out keys
        pieces.add(0, 0, x[begin : begin + 320], y[begin : begin + 320])
    z = (x[:, 1:6] - x[:, 1:6].mean(0)) / x[:, 1:6].std(0)
    direct = np.linalg.solve(z.T @ z + RIDGES[0] * np.eye(5), z.T @ (y - y.mean())) / x[:, 1:6].std(0)
    found = pieces.fit().weights[0, 0]
    np.testing.assert_allclose(found[1:6], direct, rtol=1e-3, atol=1e-4)
    assert found[6] == 0
    np.testing.assert_allclose(x @ found, y, atol=5 * 0.3)


def test_held_out_keys_tell_what_a_fit_is_worth() -> None:
    foreseen, chance = KeyFitter(), KeyFitter()
    x, y, _ = made(4000)
    foreseen.add(0, 0, x, y)
    chance.add(0, 0, x, np.random.default_rng(1).normal(size=len(y)).astype(np.float32))
    assert foreseen.fit().r2 > 0.85
    assert chance.fit().r2 < 0.01
    assert foreseen.fit().n_keys == 4000


def test_heads_are_fitted_apart() -> None:
    fitter = KeyFitter()
    x, y, _ = made(500)
    fitter.add(0, 0, x, y)
    fitter.add(0, 1, x, -y)
    fitter.add(1, 0, x, 0 * y)
    fit = fitter.fit()
    assert fit.of_layer(0).shape == (2, 7)
    np.testing.assert_allclose(fit.of_layer(0)[0], -fit.of_layer(0)[1], atol=1e-4)
    np.testing.assert_allclose(fit.of_layer(1), 0, atol=1e-6)


def test_calibration_fits(smollm2_stats: TriAttentionStats, gemma3_stats: TriAttentionStats) -> None:
    for stats in (smollm2_stats, gemma3_stats):
        assert stats.is_fitted
        assert stats.fit_r2 is not None
        assert 0.2 < stats.fit_r2 < 0.9
        for layer in stats.layers:
            assert layer.fit is not None
            assert layer.fit.shape[0] == layer.n_head_kv
            assert layer.fit.dtype == np.float32


def test_the_fit_leaves_cpus_to_others(smollm2: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy's matrix products use one thread meanwhile: on a busy machine several would wait for each other."""

    def n_blas_threads() -> set[int]:
        return {of["num_threads"] for of in threadpool_info() if of["user_api"] == "blas"}

    found = set()
    add = KeyFitter.add
    monkeypatch.setattr(KeyFitter, "add", lambda *given: (found.update(n_blas_threads()), add(*given))[1])
    with threadpool_limits(limits=2, user_api="blas"):
        before = n_blas_threads()
        calibrate(smollm2, bundled_text(), n_tokens=64)
        assert n_blas_threads() == before
    assert found == {1}


def test_the_fit_is_kept_in_the_file(smollm2_stats: TriAttentionStats, sidecar: pathlib.Path) -> None:
    loaded = TriAttentionStats.load(sidecar)
    assert loaded.fit_r2 == pytest.approx(smollm2_stats.fit_r2)
    for mine, theirs in zip(smollm2_stats.layers, loaded.layers, strict=True):
        np.testing.assert_array_equal(mine.fit, theirs.fit)


def test_files_of_version_2_still_load(
    smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_module, "FORMAT_VERSION", 2)
    without_fit(smollm2_stats).save(tmp_path / "old.triattention")
    monkeypatch.undo()
    loaded = TriAttentionStats.load(tmp_path / "old.triattention")
    assert not loaded.is_fitted
    assert loaded.fit_r2 is None
    np.testing.assert_array_equal(loaded.layers[3].centre, smollm2_stats.layers[3].centre)


def test_a_model_that_cannot_be_fitted_has_the_published_score(tiny_folder: pathlib.Path) -> None:
    """What its keys get cannot be computed."""
    path = make_tiny_model("plm", tiny_folder, of_bytes=True)
    with pytest.warns(StatsWarning, match="no fitted weights for this model.*flash attention.*published score alone"):
        stats = calibrate(path, bundled_text(), n_tokens=64)
    assert not stats.is_fitted and stats.fit_r2 is None and len(stats.layers) > 0


def test_too_little_text_is_warned_of(smollm2: pathlib.Path) -> None:
    with pytest.warns(StatsWarning, match="foresees little.*R².*calibrate on some 4096 tokens"):
        calibrate(smollm2, "one two three four five six seven eight nine ten " * 4, n_tokens=40)
