"""Selection and compaction plans, as properties over random scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytriattn import BudgetError, DecodeError, StatsError
from pytriattn._native import core
from pytriattn.eviction.steps import group_scores, plan_compaction, select

SCORED = ("per_layer_head", "per_head", "per_layer", "global")
MODES = (*SCORED, "recent", "random")


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Scores [n_layers, n_head, n_keys], KV heads, protected keys, keys to keep."""
    n_layers, n_head_kv, group = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_keys = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # few distinct values now and then, so that equal scores occur
    scores = rng.normal(size=(n_layers, n_head_kv * group, n_keys)).round(draw(st.sampled_from([0, 6])))
    protected = rng.random(n_keys) < draw(st.sampled_from([0.0, 0.2, 0.5]))
    n_keep = draw(st.integers(int(protected.sum()), n_keys))
    return scores.astype(np.float32), n_head_kv, protected, n_keep


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(MODES))
def test_every_head_keeps_the_protected_keys_and_the_right_number(problem: tuple, mode: str) -> None:
    scores, n_head_kv, protected, n_keep = problem
    kept = select(scores, n_head_kv, n_keep, mode=mode, protected=protected)
    assert kept.shape == (scores.shape[0], n_head_kv, scores.shape[2])
    assert (kept.sum(axis=-1) == n_keep).all()
    assert kept[..., protected].all()
    if mode in ("per_head",):
        assert (kept == kept[:1]).all()
    if mode == "per_layer":
        assert (kept == kept[:, :1]).all()
    if mode in ("global", "recent", "random"):
        assert (kept == kept[:1, :1]).all()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_per_layer_head_keeps_the_best_of_each_head(problem: tuple) -> None:
    scores, n_head_kv, protected, n_keep = problem
    kept = select(scores, n_head_kv, n_keep, protected=protected)
    for layer, layer_kept in zip(scores, kept, strict=True):
        for best, marks in zip(group_scores(layer, n_head_kv, protected), layer_kept, strict=True):
            chosen, dropped = best[marks & ~protected], best[~marks]
            assert not len(chosen) or not len(dropped) or chosen.min() >= dropped.max()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_recent_keeps_the_newest(problem: tuple) -> None:
    scores, n_head_kv, protected, n_keep = problem
    kept = select(scores, n_head_kv, n_keep, mode="recent", protected=protected)[0, 0]
    chosen, dropped = np.flatnonzero(kept & ~protected), np.flatnonzero(~kept)
    assert not len(chosen) or not len(dropped) or chosen.min() > dropped.max()


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(MODES), st.integers(0, 2**32))
def test_compaction_leaves_each_head_with_exactly_its_keys(problem: tuple, mode: str, seed: int) -> None:
    scores, n_head_kv, protected, n_keep = problem
    kept = select(scores, n_head_kv, n_keep, mode=mode, protected=protected, seed=seed)
    n_keys = scores.shape[2]
    slots = np.random.default_rng(seed).permutation(2 * n_keys)[:n_keys]
    plan = plan_compaction(kept, slots)
    stay = sorted(set(slots.tolist()) - set(plan.freed))
    assert len(stay) == n_keep
    assert not set(plan.freed) & set(slots[protected].tolist())
    for layer, layer_moves in zip(kept, plan.moves, strict=True):
        for marks, moves in zip(layer, layer_moves, strict=True):
            cache = {int(slot): key for key, slot in enumerate(slots)}
            before = dict(cache)
            for source, target in moves:
                assert source in plan.freed
                assert target in stay
                cache[target] = before[source]
            assert len({target for _, target in moves}) == len(moves)
            assert sorted(cache[slot] for slot in stay) == np.flatnonzero(marks).tolist()
    if mode in ("global", "recent", "random"):
        assert not any(moves for layer in plan.moves for moves in layer)


def test_random_depends_on_the_seed_alone() -> None:
    scores = np.zeros((2, 4, 200), dtype=np.float32)
    first = select(scores, 2, 50, mode="random", seed=1)
    assert (first == select(scores + 1, 2, 50, mode="random", seed=1)).all()
    assert (first != select(scores, 2, 50, mode="random", seed=2)).any()


def test_scores_of_protected_keys_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1, 2, 30)).astype(np.float32)
    protected = np.arange(30) < 5
    wild = np.where(protected, 1e9, scores)
    assert (select(scores, 1, 12, protected=protected) == select(wild, 1, 12, protected=protected)).all()


@pytest.mark.parametrize("mode", SCORED)
def test_without_layers_there_is_nothing_to_keep(mode: str) -> None:
    assert select(np.zeros((0, 2, 10)), 1, 5, mode=mode).shape == (0, 1, 10)


def test_bad_values_are_refused() -> None:
    scores = np.zeros((1, 2, 10), dtype=np.float32)
    with pytest.raises(BudgetError, match="'best'.*per_layer_head"):
        select(scores, 1, 5, mode="best")
    with pytest.raises(BudgetError, match="8 keys are protected, more than the 5 to keep"):
        select(scores, 1, 5, protected=np.arange(10) < 8)
    with pytest.raises(StatsError, match="a positive multiple of n_head_kv, 3"):
        select(scores, 3, 5)
    with pytest.raises(StatsError, match="0 query heads"):
        select(np.zeros((1, 0, 10)), 1, 5)
    with pytest.raises(StatsError, match=r"shape \[4\], it must be \[10\]"):
        select(scores, 1, 5, protected=np.zeros(4, dtype=bool))
    with pytest.raises(StatsError):
        select(np.float32(1), 1, 5)


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from([0.0, 50.0, -3e4]), st.sampled_from([1.0, 1e-3, 1e4]))
def test_devices_bring_heads_together_as_the_host_does(problem: tuple, offset: float, scale: float) -> None:
    scores, n_head_kv, _, _ = problem
    for layer in (scores * scale + offset).astype(np.float32):
        host, device = (core.group_scores(layer, n_head_kv, on_host=on_host) for on_host in (True, False))
        deviation = float(layer.astype(np.float64).std(axis=1).min())
        if deviation < 1e-6:
            continue  # the least deviation that the host divides by; the graph adds it to the variance
        # the scores' own single precision, which their deviation divides
        error = 4 * float(np.abs(layer).max()) * 2e-7 / deviation
        np.testing.assert_allclose(device, host, rtol=1e-5 + 1e-12 / deviation**2, atol=1e-5 + error)


def test_heads_without_a_favourite_say_nothing() -> None:
    scores = np.stack([np.full(50, 7.3), np.linspace(-1, 1, 50)]).astype(np.float32)
    for on_host in (True, False):
        alone, together = (core.group_scores(scores[:n], 1, on_host=on_host)[0] for n in (1, 2))
        np.testing.assert_allclose(alone, 0, atol=1e-3)
        np.testing.assert_allclose(together, np.maximum(alone, core.group_scores(scores[1:], 1)[0]), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("head", range(4))
def test_a_score_that_is_not_finite_is_never_passed_over(value: float, on_host: bool, head: int) -> None:
    scores = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    scores[head, 3] = value
    with pytest.raises(DecodeError, match="not finite"):
        core.group_scores(scores, 2, on_host=on_host)
    with pytest.raises(DecodeError, match="not finite"):
        select(scores[None], 2, 5)
