"""Mode custom: a callable chooses the keys that stay, from a view of the cache."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn import BudgetError, BusyError, ClosedError, ContextError, UnsupportedModelError
from pytriattn._native import core
from pytriattn.eviction.steps import score_keys, select
from pytriattn.stats.layer_stats import LayerStats
from support.tiny_context import Tiny, Tokens

Marks = npt.NDArray[np.bool_]
Chooser = Callable[[Any], Iterable[Marks]]

BUDGET, INTERVAL, WINDOW = 96, 32, 16


def make_context(path: pathlib.Path, chooser: Chooser | None, mode: str = "custom", **options: Any) -> Any:
    """Return a context that evicts as `chooser` or as a mode says."""
    model = core.Model(str(path))
    eviction = core.EvictionConfig(mode=mode, budget=BUDGET, interval=INTERVAL, window=WINDOW, chooser=chooser)
    stats = None
    if eviction.needs_scores:
        stats = calibrated(model)
    return core.Context(model, core.DecoderParams(n_ctx=2048, n_threads=2, eviction=eviction, **options), stats)


def calibrated(model: Any) -> Any:
    tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
    return core.calibrate(model, tokens, n_ctx=256, n_ubatch=128, n_threads=2)


def keep_newest(view: Any) -> list[Marks]:
    """Choose what mode recent chooses."""
    kept = view.is_protected.copy()
    free = np.flatnonzero(~kept)
    kept[free[len(free) - (view.n_keep - int(kept.sum())) :]] = True
    return [np.tile(kept, (layer.n_head_kv, 1)) for layer in view.layers]


def keep_at_random(view: Any) -> list[Marks]:
    """Let every head keep other keys."""
    rng = np.random.default_rng(view.position)
    result = []
    for layer in view.layers:
        marks = np.tile(view.is_protected, (layer.n_head_kv, 1))
        for head in marks:
            free = np.flatnonzero(~head)
            head[rng.choice(free, view.n_keep - int(head.sum()), replace=False)] = True
        result.append(marks)
    return result


def all_kept(context: Any, seq: int = 0) -> list[list[int]]:
    return [
        context.kept_positions(seq, layer.layer, head).tolist()
        for layer in context.layers
        for head in range(layer.n_head_kv)
    ]


def read_and_step(context: Any, tokens: Tokens) -> list[Any]:
    """Read a prompt, then go on step by step; return where evictions were, and what they left."""
    context.record_evictions(True)
    context.read(0, tokens[:150], 40)
    for token in tokens[150:].tolist():
        context.step([0], [token])
    return [(record.position, record.n_before, record.n_after) for record in context.take_evictions()]


@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2", "deepseek2"])
def test_a_chooser_stands_in_for_a_mode(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    """Evictions come at the same places, and what is kept and predicted is the same bit for bit."""
    runs = []
    for mode, chooser in (("recent", None), ("custom", keep_newest)):
        context = make_context(tiny(arch), chooser, mode)
        runs.append((read_and_step(context, random_tokens[:400]), all_kept(context), context.logits().tobytes()))
    assert len(runs[0][0]) >= 8
    assert runs[0] == runs[1]


def test_scores_of_the_keys_in_a_view_are_those_of_the_engine(tiny: Tiny, random_tokens: Tokens) -> None:
    """What Python chooses by the published formula from the view's keys is what mode per_layer_head keeps."""
    path = tiny("llama")
    layers = [LayerStats.from_native(layer) for layer in calibrated(core.Model(str(path))).layers]

    def choose(view: Any) -> list[Marks]:
        result = []
        for stats, layer in zip(layers, view.layers, strict=True):
            scores = score_keys(stats, layer.keys().transpose(1, 0, 2), view.position)
            result.append(select(scores[None], layer.n_head_kv, view.n_keep, protected=view.is_protected)[0])
        return result

    runs = []
    for mode, chooser in (("per_layer_head", None), ("custom", choose)):
        context = make_context(path, chooser, mode, type_k="f32")
        read_and_step(context, random_tokens[:300])
        runs.append(all_kept(context))
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(*runs, strict=True)]
    assert np.mean(same) > 0.99  # near-ties may fall otherwise
    assert len(set(map(tuple, runs[0]))) > 1  # heads differ


@pytest.mark.parametrize("type_k", ["f32", "q8_0"])
def test_heads_may_keep_different_keys(tiny: Tiny, random_tokens: Tokens, type_k: str) -> None:
    """After evictions the origins of a view are the positions that each head keeps, and rows are those of these
    tokens.
    """
    full = core.Context(core.Model(str(tiny("qwen3"))), core.DecoderParams(n_ctx=2048, n_threads=2, type_k=type_k))
    full.read(0, random_tokens[:150])
    context = make_context(tiny("qwen3"), keep_at_random, type_k=type_k)
    context.read(0, random_tokens[:110])
    first = context.eviction_view()
    assert (first.n_keys, first.n_keep, first.position) == (110, BUDGET, 110)
    keys_of_first = [layer.keys() for layer in first.layers]
    context.evict()
    view = context.eviction_view()
    assert view.n_keys == view.n_keep == BUDGET
    assert view.is_protected.sum() == 4 + WINDOW
    assert len(set(map(tuple, all_kept(context)))) > 1
    for before, layer in zip(keys_of_first, view.layers, strict=True):
        origins, keys = layer.origins(), layer.keys()
        assert origins.dtype == np.int32 and origins.shape == (layer.n_head_kv, BUDGET)
        for head in range(layer.n_head_kv):
            assert sorted(origins[head].tolist()) == context.kept_positions(0, layer.layer, head).tolist()
            np.testing.assert_array_equal(keys[head], before[head, origins[head]])


@pytest.mark.parametrize("mode", [None, "recent", "custom"])
def test_a_view_between_steps_shows_the_rows_of_the_cache(tiny: Tiny, random_tokens: Tokens, mode: str | None) -> None:
    path = tiny("llama")
    if mode is None:
        params = core.DecoderParams(n_ctx=512, n_threads=2, type_k="f32", type_v="f32")
        context = core.Context(core.Model(str(path)), params)
    else:
        chooser = keep_newest if mode == "custom" else None
        context = make_context(path, chooser, mode, type_k="f32", type_v="f32")
    context.read(0, random_tokens[:100], 30)
    logits = context.logits().tobytes()
    view = context.eviction_view()
    assert view.positions.tolist() == list(range(100))
    assert view.positions.dtype == np.int32
    assert (view.seq, view.n_keys, view.n_keep) == (0, 100, 100 if mode is None else BUDGET)
    protected = [] if mode is None else [*range(30), *range(100 - WINDOW, 100)]
    assert np.flatnonzero(view.is_protected).tolist() == protected
    slots = [cell.slot for cell in core.testing.cells(context)]
    assert [layer.layer for layer in view.layers] == [layer.layer for layer in context.layers]
    for layer in view.layers:
        assert (layer.origins() == np.arange(100)).all()
        for value, found, width in (
            (False, layer.keys(), layer.head_dim_k),
            (True, layer.values(), layer.head_dim_v),
        ):
            assert found.dtype == np.float32
            stored = np.frombuffer(core.testing.cache_rows(context, 0, layer.layer, value), dtype=np.float32)
            expected = stored.reshape(-1, layer.n_head_kv, width)[slots].transpose(1, 0, 2)
            np.testing.assert_array_equal(found, expected)
    assert context.logits().tobytes() == logits


@pytest.mark.parametrize(
    "options",
    [{"type_k": "q8_0", "type_v": "q8_0"}, {"type_k": "bf16"}, {"flash_attn": "off"}],
    ids=lambda options: "-".join(options.values()),
)
@pytest.mark.parametrize("arch", ["qwen3", "llama"])
def test_rows_mean_the_same_in_every_cache(tiny: Tiny, random_tokens: Tokens, arch: str, options: dict) -> None:
    """Quantised caches multiply rows by a Hadamard matrix, and without flash attention values lie in columns."""
    found = []
    for settings in ({"type_k": "f32", "type_v": "f32"}, options):
        context = core.Context(core.Model(str(tiny(arch))), core.DecoderParams(n_ctx=512, n_threads=2, **settings))
        context.read(0, random_tokens[:64])
        logits = context.logits().copy()
        layer = context.eviction_view().layers[0]  # deeper layers hold what earlier ones have rounded
        found.append((layer.keys(), layer.values()))
        np.testing.assert_array_equal(context.logits(), logits)
    if arch == "qwen3" and options.get("type_k") == "q8_0":
        assert core.testing.k_rotation(context) is not None
    for exact, rounded in zip(*found, strict=True):
        assert exact.shape == rounded.shape
        error = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
        assert error < 0.02


def test_latent_attention_has_no_values_of_its_own(tiny: Tiny, random_tokens: Tokens) -> None:
    context = core.Context(core.Model(str(tiny("deepseek2"))), core.DecoderParams(n_ctx=512, n_threads=2))
    context.read(0, random_tokens[:20])
    layer = context.eviction_view().layers[0]
    assert layer.head_dim_v == 0
    assert layer.values().shape == (layer.n_head_kv, 20, 0)
    assert layer.keys().shape == (layer.n_head_kv, 20, layer.head_dim_k)


def change(view: Any, what: str) -> Any:
    """Return a choice with something wrong."""
    kept: list[Any] = keep_newest(view)
    if what == "no answer":
        return None
    if what == "layer missing":
        return kept[:-1]
    if what == "layer too many":
        return [*kept, kept[0]]
    if what == "no array":
        kept[1] = "all"
    elif what == "head missing":
        kept[1] = kept[1][:-1]
    elif what == "key missing":
        kept[1] = kept[1][:, :-1]
    elif what == "numbers":
        kept[1] = kept[1].astype(np.float32)
    elif what == "one more":
        kept[1][1, 10] = True
    elif what == "one less":
        kept[1][1, np.flatnonzero(kept[1][1] & ~view.is_protected)[0]] = False
    elif what == "protected":
        kept[1][1, 2], kept[1][1, 10] = False, True
    return kept


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no answer", r"returned None, expected a list of 3 bool arrays"),
        ("layer missing", "answered for 2 layers, expected 3"),
        ("layer too many", "answered for 4 layers, expected 3"),
        ("no array", r"answer for layer 1 is .*, expected bool \[2, 110\]"),
        ("head missing", r"answer for layer 1 is bool \[1, 110\], expected bool \[2, 110\]"),
        ("key missing", r"answer for layer 1 is bool \[2, 109\], expected bool \[2, 110\]"),
        ("numbers", r"answer for layer 1 is float32 \[2, 110\], expected bool \[2, 110\]"),
        ("one more", "keeps 97 keys of head 1 of layer 1, expected 96"),
        ("one less", "keeps 95 keys of head 1 of layer 1, expected 96"),
        ("protected", "drops key 2 of head 1 of layer 1, which is protected"),
    ],
)
def test_a_choice_that_does_not_fit_changes_nothing(tiny: Tiny, random_tokens: Tokens, what: str, message: str) -> None:
    answer = [what]
    context = make_context(tiny("llama"), lambda view: change(view, answer[0]))
    context.read(0, random_tokens[:110])
    with pytest.raises(BudgetError, match=message):
        context.evict()
    assert all_kept(context) == [list(range(110))] * 6
    assert context.counters().n_evictions == 0
    assert not context.has_evicted()
    answer[0] = "nothing"
    context.evict()
    assert context.counters().n_evictions == 1
    assert {len(kept) for kept in all_kept(context)} == {BUDGET}


def test_an_error_of_the_chooser_comes_out(tiny: Tiny, random_tokens: Tokens) -> None:
    """An eviction of its own leaves the cache as it was; a step has cleared the context, which can be used again."""
    must_fail = [True]

    def choose(view: Any) -> list[Marks]:
        if must_fail[0]:
            raise ZeroDivisionError(f"at {view.position}")
        return keep_newest(view)

    context = make_context(tiny("llama"), choose)
    context.read(0, random_tokens[:110])
    with pytest.raises(ZeroDivisionError, match="at 110"):
        context.evict()
    assert context.n_tokens() == 110
    assert context.counters().cells_used == 110
    with pytest.raises(ZeroDivisionError, match="at 128"):
        for token in random_tokens[110:200].tolist():
            context.step([0], [token])
    assert context.n_tokens() == context.counters().cells_used == 0
    must_fail[0] = False
    again, fresh = context, make_context(tiny("llama"), keep_newest)
    assert read_and_step(again, random_tokens[:300]) == read_and_step(fresh, random_tokens[:300])
    assert again.logits().tobytes() == fresh.logits().tobytes()


def test_views_end(tiny: Tiny, random_tokens: Tokens) -> None:
    seen: list[Any] = []

    def choose(view: Any) -> list[Marks]:
        seen.append(view)
        return keep_newest(view)

    context = make_context(tiny("llama"), choose)
    context.read(0, random_tokens[:110])
    outside = context.eviction_view()
    assert outside.layers[0].keys().shape == (2, 110, outside.layers[0].head_dim_k)
    context.evict()
    assert (seen[0].n_keys, seen[0].position) == (110, 110)
    for read in (seen[0].layers[0].keys, seen[0].layers[0].values, seen[0].layers[0].origins):
        with pytest.raises(ClosedError, match="eviction is over"):
            read()
    with pytest.raises(ClosedError):
        seen[0].positions  # noqa: B018
    for change_cache in (
        lambda: context.step([0], [1]),
        lambda: context.truncate(0, 20),
        context.clear,
    ):
        with pytest.raises(ContextError, match="the cache has changed"):
            outside.layers[0].keys()
        outside = context.eviction_view()
        outside.layers[0].keys()
        change_cache()
    empty = context.eviction_view()
    assert (empty.n_keys, empty.position) == (0, 0)
    assert empty.layers[0].keys().shape == (2, 0, empty.layers[0].head_dim_k)
    context.close()
    with pytest.raises(ClosedError):
        empty.layers[0].keys()


def test_a_chooser_cannot_use_the_context(tiny: Tiny, random_tokens: Tokens) -> None:
    def choose(view: Any) -> list[Marks]:
        context.step([0], [1])
        return keep_newest(view)

    context = make_context(tiny("llama"), choose)
    context.read(0, random_tokens[:110])
    with pytest.raises(BusyError):
        context.evict()
    assert context.n_tokens() == 110


def test_settings_of_a_chooser(tiny: Tiny) -> None:
    with pytest.raises(BudgetError, match="there is none"):
        core.EvictionConfig(mode="custom", budget=96, window=16)
    with pytest.raises(BudgetError, match="mode is 'recent'"):
        core.EvictionConfig(mode="recent", budget=96, window=16, chooser=keep_newest)
    config = core.EvictionConfig(mode="custom", budget=96, window=16, chooser=keep_newest)
    assert config.chooser is keep_newest
    assert config.moves_rows and not config.needs_scores
    assert core.EvictionConfig(mode="recent", budget=96, window=16).chooser is None
    assert "custom" not in core.MODES
    with pytest.raises(UnsupportedModelError, match="ALiBi"):
        make_context(tiny("bloom"), keep_newest)
    with pytest.raises(BudgetError, match="flash attention"):
        make_context(tiny("llama"), keep_newest, flash_attn="off")
