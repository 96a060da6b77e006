"""Evictions on tiny models: what the cache holds afterwards, when they are due, what is protected and what is refused.

`test_architectures.py` has the checks that every architecture has to pass."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from models import sliding
from pytriattn import BudgetError, ContextError, ContextFullError, DecodeError, UnsupportedModelError
from pytriattn._native import core
from support.architecture_checks import misplaced_rows, snapshot
from support.tiny_context import Tiny, TinyContext, Tokens

pytestmark = pytest.mark.alone  # in two threads


@pytest.mark.parametrize(
    "types",
    [
        ("f32", "f16"),
        ("bf16", "bf16"),
        ("q8_0", "q8_0"),
        ("q4_0", "q4_0"),
        ("q8_0", "q4_0"),
        ("q4_1", "q5_1"),
        ("q5_0", "iq4_nl"),
        ("iq4_nl", "f16"),
    ],
)
@pytest.mark.parametrize(
    "arch", ["llama", "qwen3"]
)  # rows of 32 (18 bytes in q4_0: no whole words) and of 64 (Hadamard-rotated)
def test_cache_types(tiny: Tiny, random_tokens: Tokens, arch: str, types: tuple[str, str]) -> None:
    context = TinyContext(tiny(arch), budget=96, type_k=types[0], type_v=types[1]).context
    context.read(0, random_tokens[:120], 0)
    before, slot_of = snapshot(context, types), {cell.position: cell.slot for cell in core.testing.cells(context)}
    context.evict()
    assert misplaced_rows(context, types, before, slot_of) == 0
    heads = [
        context.kept_positions(0, layer.layer, head).tolist()
        for layer in context.layers
        for head in range(layer.n_head_kv)
    ]
    assert len({tuple(head) for head in heads}) > 1  # heads really keep different keys


@pytest.mark.parametrize(("type_k", "agreement"), [("bf16", 0.97), ("q8_0", 0.97), ("q5_1", 0.93), ("q4_0", 0.88)])
def test_kept_sets_hardly_depend_on_the_cache_type(
    tiny: Tiny, random_tokens: Tokens, type_k: str, agreement: float
) -> None:
    """With heads of 64 llama.cpp rotates quantised keys; scoring them as they are stored would choose other keys."""
    kept = []
    for cache_type in ("f16", type_k):
        context = TinyContext(tiny("qwen3"), budget=64, type_k=cache_type).context
        context.read(0, random_tokens[:95], 0)
        context.evict()
        kept.append(
            {
                (layer.layer, head, p)
                for layer in context.layers
                for head in range(layer.n_head_kv)
                for p in context.kept_positions(0, layer.layer, head)
            }
        )
    assert len(kept[0] & kept[1]) / len(kept[0]) >= agreement


def test_origin_map_survives_many_evictions(tiny: Tiny, random_tokens: Tokens) -> None:
    """After several evictions and reused cells, each head's rows are still those of the positions that it says it
    keeps.
    """
    path = tiny("llama")
    evicting = TinyContext(path, budget=96, interval=32).context
    rows: dict[tuple[int, int, int, int], bytes] = {}
    for i, token in enumerate(random_tokens[:400]):
        evicting.step([0], [int(token)])
        newest = {cell.position: cell.slot for cell in core.testing.cells(evicting)}[i]
        # a new row is never moved in the step that makes it: it is within the window
        for (layer, value, head), table in snapshot(evicting, ("f16", "f16")).items():
            rows[layer, value, head, i] = table[newest].tobytes()
    assert evicting.counters().n_evictions == 9
    after = snapshot(evicting, ("f16", "f16"))
    cells = [cell.slot for cell in core.testing.cells(evicting)]
    for layer, n_head_kv in ((layer.layer, layer.n_head_kv) for layer in evicting.layers):
        for head in range(n_head_kv):
            kept = evicting.kept_positions(0, layer, head)
            assert len(set(kept.tolist())) == len(kept) == len(cells)
            for value in (0, 1):
                found = sorted(after[layer, value, head][slot].tobytes() for slot in cells)
                assert found == sorted(rows[layer, value, head, p] for p in kept)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2"])
def test_sinks_window_and_protected_prompt_stay(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    context = TinyContext(tiny(arch), budget=96, interval=32, window=16).context
    context.read(0, random_tokens[:40], 40)
    for token in random_tokens[40:300]:
        context.step([0], [int(token)])
    assert context.counters().n_evictions >= 5
    for layer in context.layers:
        for head in range(layer.n_head_kv):
            kept = set(context.kept_positions(0, layer.layer, head).tolist())
            assert set(range(40)) <= kept
            assert set(range(284, 300)) <= kept


def test_protection_cannot_come_too_late(tiny: Tiny, random_tokens: Tokens) -> None:
    context = TinyContext(tiny("llama"), mode="recent", budget=96).context
    context.read(0, random_tokens[:200], 0)
    with pytest.raises(BudgetError, match="after an eviction"):
        context.read(0, random_tokens[:10], 40)
    assert context.n_tokens() == 200
    # and it ends with the text that it was for
    context.clear()
    context.read(0, random_tokens[:70], 70)
    context.clear()
    context.read(0, random_tokens[:200], 0)
    assert context.kept_positions(0, 0, 0).tolist()[:6] == [0, 1, 2, 3, 108, 109]


def test_an_eviction_is_due_when_the_interval_is_full(tiny: Tiny, random_tokens: Tokens) -> None:
    """The lengths that the published policy goes through: never beyond budget + interval - 1."""
    context = TinyContext(tiny("llama"), budget=24, interval=8, window=4).context
    context.read(0, random_tokens[:6], 0)
    lengths = []
    for token in random_tokens[6:46]:
        context.step([0], [int(token)])
        lengths.append(context.counters().cells_used)
    assert lengths == [*range(7, 32), *range(24, 32), *range(24, 31)]


def decoded_together(path: pathlib.Path, texts: list[Tokens], **options: bool) -> core.Context:
    """Return a context that has decoded texts of equal length in one batch a step, each as a sequence."""
    context = TinyContext(path, budget=96, n_seq_max=len(texts), **options).context
    for seq, text in enumerate(texts):
        context.read(seq, text[:150], 0)
    for tokens in zip(*(text[150:] for text in texts), strict=True):
        context.step(list(range(len(texts))), [int(token) for token in tokens])
    return context


def kept_by_layer(context: core.Context, seq: int) -> list[list[int]]:
    return [context.kept_positions(seq, layer.layer, 0).tolist() for layer in context.layers]


@pytest.mark.parametrize("kv_unified", [False, True])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2"])
def test_sequences_have_budgets_of_their_own(tiny: Tiny, random_tokens: Tokens, arch: str, kv_unified: bool) -> None:
    """A sequence keeps and predicts nearly the same as alone, and in cells of its own the same beside any other."""
    first, second, third = (random_tokens[start : start + 300] for start in (0, 137, 61))
    together = decoded_together(tiny(arch), [first, second], kv_unified=kv_unified)
    for seq, (text, texts) in enumerate([(first, [first, third]), (second, [third, second])]):
        found = kept_by_layer(together, seq)
        if not kv_unified:
            beside_another = decoded_together(tiny(arch), texts)
            assert found == kept_by_layer(beside_another, seq)
            np.testing.assert_array_equal(together.logits(seq), beside_another.logits(seq))
        # products of other sizes and sums over cells in another order round otherwise, so near-ties may fall otherwise
        alone = decoded_together(tiny(arch), [text])
        kept = kept_by_layer(alone, 0)
        assert all(len(set(a) & set(b)) >= 0.95 * len(a) for a, b in zip(found, kept, strict=True))
        assert np.corrcoef(together.logits(seq), alone.logits(0))[0, 1] > 0.995
        assert together.counters(seq).cells_used == len(kept[0])
    # clearing one leaves the other alone
    kept = kept_by_layer(together, 1)
    together.clear(0)
    assert together.n_tokens(0) == 0
    assert together.counters(1).cells_used == len(kept[0])
    assert kept_by_layer(together, 1) == kept


def test_unequal_lengths_in_one_unified_cache(tiny: Tiny, random_tokens: Tokens) -> None:
    together = TinyContext(tiny("llama"), budget=96, n_seq_max=3, kv_unified=True).context
    for seq, n in enumerate((400, 50, 130)):
        together.read(seq, random_tokens[:n], 0)
    assert [together.counters(seq).cells_used for seq in range(3)] == [96, 50, 96]
    together.step([2, 0, 1], [1, 2, 3])
    assert [together.n_tokens(seq) for seq in range(3)] == [401, 51, 131]


def test_repeated_runs_are_identical(tiny: Tiny, random_tokens: Tokens) -> None:
    for mode in ("per_layer_head", "random"):
        context = TinyContext(tiny("llama"), mode=mode, seed=5).context
        runs = []
        for _ in range(2):
            context.clear()
            before = context.counters().n_evictions
            context.read(0, random_tokens[:500], 0)
            assert context.counters().n_evictions - before >= 2
            runs.append((context.kept_positions(0, 1, 1).tolist(), context.logits(0).tolist()))
        assert runs[0] == runs[1]


def test_without_flash_attention_only_whole_cells_can_go(tiny: Tiny, random_tokens: Tokens) -> None:
    for mode in ("per_layer_head", "per_head", "per_layer"):
        with pytest.raises(BudgetError, match="flash attention"):
            TinyContext(tiny("llama"), mode=mode, flash_attn="off")
    kept = []
    for flash_attn in ("on", "off"):
        context = TinyContext(tiny("llama"), mode="global", flash_attn=flash_attn).context
        context.read(0, random_tokens[:120], 0)
        context.evict()
        kept.append(set(context.kept_positions(0, 0, 0).tolist()))
    assert len(kept[0] & kept[1]) >= 94


@pytest.mark.parametrize("window", [100, 200])
def test_sliding_windows_larger_than_the_budget(
    random_tokens: Tokens, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """The sliding layers' cache is never larger than that of the others; it still has to hold its window."""
    monkeypatch.setattr(sliding, "WINDOW", window)
    sliding.gemma3().save(tmp_path / "window.gguf")
    context = TinyContext(tmp_path / "window.gguf", budget=96).context
    context.read(0, random_tokens[:1000], 0)
    for token in random_tokens[:40]:
        context.step([0], [int(token)])
    assert np.isfinite(context.logits(0)).all()
    assert context.counters().cells_used < 128


def test_memory_is_what_the_budget_says(tiny: Tiny) -> None:
    full = TinyContext(tiny("llama"), budget=None, n_ctx=8192).context.counters()
    small = TinyContext(tiny("llama"), budget=512, interval=128, n_ctx=8192).context.counters()
    assert full.cells_allocated == 8192
    assert full.k_bytes == 8192 * 3 * 2 * 32 * 2  # layers, heads, head dimension, bytes
    assert small.cells_allocated == 768
    assert small.k_bytes * 8192 == full.k_bytes * 768


def test_a_budget_near_n_ctx_does_not_slow_down_reading(tiny: Tiny) -> None:
    for budget in (3000, 4000, 4095, 4096, 9000):
        assert TinyContext(tiny("llama"), mode="recent", budget=budget).context.chunk == 512


def test_alibi_depends_on_where_keys_lie(tiny: Tiny, random_tokens: Tokens) -> None:
    """Its bias is computed from the cells' positions, which are labels once rows have moved, and scores do not know
    it.
    """
    for mode in ("per_layer_head", "per_head", "per_layer", "global"):
        with pytest.raises(UnsupportedModelError, match="ALiBi"):
            TinyContext(tiny("bloom"), mode=mode)
    context = TinyContext(tiny("bloom"), mode="recent").context
    context.read(0, random_tokens[:200], 0)
    assert context.counters().n_evictions > 0


def test_learned_positions_end_where_their_table_does(tiny: Tiny, random_tokens: Tokens) -> None:
    """llama.cpp looks positions up without a check, and an assertion ends the process."""
    with pytest.raises(ContextError, match="learned positions, and only 2048"):
        TinyContext(tiny("gpt2"), n_ctx=2049)
    model = core.Model(str(tiny("gpt2")))
    with pytest.raises(ContextError, match="learned positions, and only 2048"):
        core.calibrate(model, np.resize(random_tokens, 4096), n_ctx=2049, n_ubatch=128, n_threads=1)
    context = TinyContext(tiny("gpt2"), n_ctx=2048).context
    context.read(0, np.resize(random_tokens, 2048), 0)
    with pytest.raises(ContextFullError):
        context.step([0], [1])
    assert np.isfinite(context.logits()).all()


def test_sequences_that_do_not_divide_a_step(tiny: Tiny, random_tokens: Tokens) -> None:
    """llama.cpp's graph for Kimi Linear would end the process."""
    for n_seq_max in (2, 3, 5):
        context = TinyContext(tiny("kimi-linear"), n_seq_max=n_seq_max, n_ubatch=100).context
        assert context.n_ubatch % n_seq_max == 0
        for seq in range(n_seq_max):
            context.read(seq, random_tokens[: 150 + seq], 0)
        context.step(list(range(n_seq_max)), [1] * n_seq_max)
        assert np.isfinite(context.logits(0)).all()


def test_full_prefill_prunes_once(tiny: Tiny, random_tokens: Tokens) -> None:
    context = TinyContext(tiny("llama"), budget=96, n_ctx=2048, full_prefill=True).context
    context.read(0, random_tokens[:1000], 0)
    counters = context.counters()
    assert (counters.n_evictions, counters.cells_used, counters.n_tokens_evicted) == (1, 96, 904)


def test_no_room_for_a_shared_cell(tiny: Tiny) -> None:
    model = core.Model(str(tiny("llama")))
    with pytest.raises(ContextError, match="n_seq_max is 1"):
        core.Context(model, core.DecoderParams(n_ctx=256)).read(1, np.arange(3, dtype=np.int32), 0)
    context = core.Context(model, core.DecoderParams(n_ctx=256, n_seq_max=2))
    with pytest.raises(ContextError, match="once"):
        context.step([0, 0], [1, 2])


def test_an_error_while_decoding_clears_the_context(tiny: Tiny, random_tokens: Tokens) -> None:
    """Statistics with a NaN hidden from the checks cannot be made; a cache full of NaN can: it is an error, not a
    random choice.
    """
    tiny_context = TinyContext(tiny("llama"), budget=96)
    model = tiny_context.model
    broken = core.Stats(
        [
            core.LayerStats(
                layer=layer.layer,
                n_head=layer.n_head,
                n_head_kv=layer.n_head_kv,
                head_dim=layer.head_dim,
                rot_begin=layer.rot_begin,
                n_rot=layer.n_rot,
                interleaved=layer.interleaved,
                scale=layer.scale,
                omega=layer.omega,
                centre=np.full_like(layer.centre, 3e38),
                magnitude=layer.magnitude,
            )
            for layer in core.calibrate(model, random_tokens[:64], n_ctx=64, n_ubatch=64, n_threads=2).layers
        ],
        64,
    )
    context = core.Context(
        model,
        core.DecoderParams(
            n_ctx=4096,
            n_threads=2,
            eviction=core.EvictionConfig(mode="per_layer_head", budget=96, interval=32, window=16),
        ),
        broken,
    )
    with pytest.raises(DecodeError, match="not finite"):
        context.read(0, random_tokens[:400], 0)
    assert context.n_tokens() == 0
    context.read(0, random_tokens[:50], 0)
    assert context.n_tokens() == 50
