"""Eviction by compaction computes attention over exactly the kept keys: logits against a dense forward pass in numpy.

Before every step a budgeted context says which positions each KV head of each layer still holds. A forward pass of the
same model in numpy (`numpy_llama.py`) gets these sets as masks, and has to predict the same after every step, through
several evictions. Keys and values of evicted tokens play their part: what they were is in the hidden states of later
ones.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn._native import core
from support.numpy_llama import Array, NumpyLlama, Store, as_bf16, as_f16, as_is, as_rotated_kv3, as_rotated_q8_0
from support.tiny_context import Tiny, Tokens

N = 260  # tokens: with a budget of 96 and an interval of 32 there are five evictions
MODES = ("per_layer_head", "per_head", "per_layer", "global", "recent", "random")
CAUSAL = np.tri(N, dtype=bool)
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cache:
    """A type of cache on a tiny model, and how far logits may be from those of numpy: at most, and in the root mean
    square.
    """

    arch: str
    type: str
    store: Store  # what numpy does to keys and values
    round_queries: Store
    largest: float
    rms: float
    flash_attn: str = "on"

    def __str__(self) -> str:
        return f"{self.arch}-{self.type}"


# The bounds are at least twice what was measured in all tests of this file (x86-64 with AVX2, logits as large as 8),
# given behind them. Wrong masks give 1.3 (rms 0.15) or more, a single wrong row in one head 0.017 or more. Flash
# attention on the CPU sums float16 values in float16, which numpy does not imitate, but others in float32: then only
# rounding that falls the other way is left.
F32 = Cache("llama", "f32", as_is, as_is, 5e-5, 5e-6, flash_attn="off")  # 1.2e-5, rms 1.0e-6
F32_FACTORS = Cache("llama-ropefreqs", "f32", as_is, as_is, 5e-5, 5e-6, flash_attn="off")  # 1.7e-5, rms 1.2e-6
F16 = Cache("llama", "f16", as_is, as_is, 3.2e-2, 5.5e-3)  # 1.6e-2, rms 2.7e-3
BF16 = Cache("llama", "bf16", as_bf16, as_bf16, 8e-3, 4e-4)  # 3.7e-3, rms 1.9e-4
Q8_0 = Cache("llama-ropefreqs", "q8_0", as_rotated_q8_0, as_rotated_q8_0, 3e-2, 2e-3)  # 1.5e-2, rms 9.6e-4
# a value beside a cut between two levels may fall to the other one, which is half its block's scale away
KV3 = Cache("llama-ropefreqs", "kv3", as_rotated_kv3, as_rotated_q8_0, 0.3, 1.5e-2)  # 1.4e-1, rms 7.1e-3

# From 64 queries at once on it sums in float32 and leaves queries as they are: what compaction is proven by.
TILE = 64
F16_TILES = Cache("llama", "f16", as_f16, as_is, 2e-3, 2e-4)  # 3.5e-4, rms 7.1e-5


@functools.cache
def calibrated(path: pathlib.Path) -> tuple[Any, Any]:
    # one thread here and below: these models are too small for more
    model = core.Model(str(path))
    tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
    return model, core.calibrate(model, tokens, n_ctx=256, n_ubatch=128, n_threads=1)


@functools.cache
def numpy_model(path: pathlib.Path) -> NumpyLlama:
    return NumpyLlama(path)


@dataclass
class Run:
    """What a context did with a text: the keys that it let each query see, and its logits."""

    tokens: Tokens
    visible: Marks  # [layer, kv_head, query, key]
    unmoved: Marks  # the same, had evictions freed the same cells, but copied no rows
    logits: dict[int, npt.NDArray[np.float32]]  # after some queries

    def difference(self, model: NumpyLlama, cache: Cache, visible: Marks) -> tuple[float, float]:
        """Return the largest and the rms difference from numpy with these masks."""
        expected = model.logits(
            self.tokens, np.broadcast_to(visible, self.visible.shape), cache.store, cache.round_queries
        )
        found: Array = np.array(list(self.logits.values())) - expected[list(self.logits)]
        return float(np.abs(found).max()), float(np.sqrt((found**2).mean()))

    def check(self, model: NumpyLlama, cache: Cache) -> None:
        largest, rms = self.difference(model, cache, self.visible)
        assert largest < cache.largest
        assert rms < cache.rms


def drive(context: Any, texts: Sequence[Tokens], sizes: Sequence[int] = (1,) * N) -> list[Run]:
    """Feed a text to each sequence, in steps of these sizes, and note what each step finds in the cache."""
    heads = [(layer.layer, head) for layer in context.layers for head in range(layer.n_head_kv)]
    n = sum(sizes)
    seen = np.zeros((2, len(texts), len(heads), n, n), dtype=bool)
    logits: list[dict[int, npt.NDArray[np.float32]]] = [{} for _ in texts]
    done = 0
    for size in sizes:
        rows = slice(done, done + size)
        for seq in range(len(texts)):
            labels = [cell.position for cell in core.testing.cells(context, seq)]
            for i, (layer, head) in enumerate(heads):
                kept = context.kept_positions(seq, layer, head)
                assert len(set(kept.tolist())) == len(kept) == len(labels)
                seen[0, seq, i, rows, kept] = True
                seen[1, seq, i, rows, labels] = True
        assert not seen[..., rows, done:].any()
        seen[..., rows, rows] = np.tri(size, dtype=bool)
        if size == 1:
            context.step(list(range(len(texts))), [int(text[done]) for text in texts])
            for seq in range(len(texts)):
                logits[seq][done] = context.logits(seq)
        else:
            assert size <= context.chunk  # or the cache might be pruned half-way
            for seq, text in enumerate(texts):
                context.read(seq, text[rows], 0)
                logits[seq][done + size - 1] = context.logits(0)
        done += size
    visible, unmoved = seen.reshape(2, len(texts), len(context.layers), -1, n, n)
    return [Run(text[:n], *masks) for text, *masks in zip(texts, visible, unmoved, logits, strict=True)]


def make_context(
    path: pathlib.Path, cache: Cache, mode: str | None = "per_layer_head", interval: int = 32, **options: Any
) -> Any:
    """Make a context with a budget of 96, or one that keeps everything if the mode is None."""
    model, stats = calibrated(path)
    settings = {"type_k": cache.type, "type_v": cache.type, "flash_attn": cache.flash_attn, **options}
    eviction = None if mode is None else core.EvictionConfig(mode=mode, budget=96, interval=interval, window=16)
    return core.Context(model, core.DecoderParams(n_ctx=1024, n_threads=1, eviction=eviction, **settings), stats)


@pytest.mark.parametrize("cache", [F32, F32_FACTORS], ids=str)
def test_numpy_computes_what_the_model_does(tiny: Tiny, random_tokens: Tokens, cache: Cache) -> None:
    path = tiny(cache.arch)
    (run,) = drive(make_context(path, cache, mode=None), [random_tokens])
    assert (run.visible == CAUSAL).all()
    run.check(numpy_model(path), cache)


@pytest.mark.parametrize("cache", [F32, F32_FACTORS], ids=str)
@pytest.mark.parametrize("mode", ["global", "recent", "random"])
def test_modes_that_move_nothing_are_exact(tiny: Tiny, random_tokens: Tokens, mode: str, cache: Cache) -> None:
    """Without flash attention only whole cells can go, but everything is float32."""
    path = tiny(cache.arch)
    context = make_context(path, cache, mode=mode)
    (run,) = drive(context, [random_tokens])
    assert context.counters().n_evictions == 5
    run.check(numpy_model(path), cache)


@pytest.mark.parametrize("cache", [F16, BF16, Q8_0, KV3], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_query_sees_the_kept_keys(tiny: Tiny, random_tokens: Tokens, mode: str, cache: Cache) -> None:
    path = tiny(cache.arch)
    context = make_context(path, cache, mode=mode)
    (run,) = drive(context, [random_tokens])
    assert context.counters().n_evictions == 5
    model = numpy_model(path)
    run.check(model, cache)
    # so that this test can fail: no key was evicted; rows were not moved; heads, or layers, hold what others should
    wrong = [CAUSAL]
    if mode.startswith("per_"):
        wrong += [run.unmoved, run.visible[:, ::-1] if mode.endswith("_head") else run.visible[::-1]]
    else:
        assert (run.unmoved == run.visible).all()
    for visible in wrong:
        largest, rms = run.difference(model, cache, visible)
        assert largest > 0.5
        assert rms > 0.08


@pytest.mark.parametrize("mode", MODES)
def test_compaction_gives_the_logits_of_per_head_masks(tiny: Tiny, random_tokens: Tokens, mode: str) -> None:
    """In steps of so many tokens that llama.cpp's attention is as exact as a float16 cache allows."""
    path = tiny(F16_TILES.arch)
    context = make_context(path, F16_TILES, mode=mode, interval=TILE)
    (run,) = drive(context, [random_tokens], (TILE,) * 8)
    assert context.counters().n_evictions == 6
    run.check(numpy_model(path), F16_TILES)
    if mode.startswith("per_"):
        assert run.difference(numpy_model(path), F16_TILES, run.unmoved)[0] > 0.1


def test_a_single_wrong_row_would_be_noticed(tiny: Tiny, random_tokens: Tokens) -> None:
    """From the fourth eviction on, one kept key is exchanged for an evicted one: in each head of each layer by
    itself.
    """
    path = tiny(BF16.arch)
    (run,) = drive(make_context(path, BF16), [random_tokens])
    fourth = 96 + 4 * 32
    for layer, head in np.ndindex(run.visible.shape[:2]):
        visible = run.visible.copy()
        keys = visible[layer, head]
        kept, gone = np.flatnonzero(keys[-1]), np.flatnonzero(~keys[fourth, :fourth])
        keys[fourth:, kept[len(kept) // 2]] = False
        keys[fourth:, gone[len(gone) // 2]] = True
        assert run.difference(numpy_model(path), BF16, visible)[0] > BF16.largest


CHUNKS = (60, 50, 1, 1, 45, *(1,) * 40, 50, *(1,) * 20, 20, 20, 20)


@pytest.mark.parametrize("cache", [F16, BF16, Q8_0, KV3], ids=str)
@pytest.mark.parametrize(
    ("full_prefill", "sizes", "n_evictions"),
    [(False, CHUNKS, 5), (True, (200, *(1,) * 60), 2)],
    ids=["chunked", "full"],
)
def test_prompts_read_at_once(
    tiny: Tiny, random_tokens: Tokens, full_prefill: bool, sizes: tuple[int, ...], n_evictions: int, cache: Cache
) -> None:
    path = tiny(cache.arch)
    context = make_context(path, cache, full_prefill=full_prefill)
    (run,) = drive(context, [random_tokens], sizes)
    assert context.counters().n_evictions == n_evictions
    run.check(numpy_model(path), cache)


@pytest.mark.parametrize("cache", [F16, BF16, Q8_0, KV3], ids=str)
@pytest.mark.parametrize("kv_unified", [False, True])
def test_sequences_see_their_own_keys(tiny: Tiny, random_tokens: Tokens, kv_unified: bool, cache: Cache) -> None:
    path = tiny(cache.arch)
    context = make_context(path, cache, n_seq_max=2, kv_unified=kv_unified)
    # the second sequence is used twice, as it was cleared in between
    context.read(1, random_tokens[500:600], 0)
    context.step([1], [7])
    context.clear(1)
    for run in drive(context, [random_tokens, random_tokens[300:]]):
        run.check(numpy_model(path), cache)
    assert context.counters().n_evictions == 10
