"""Mode ``fitted``: what keys are expected to get, what they got, and what a question asks of them, against numpy."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from models.registry import ARCHITECTURES, make_tiny_model
from pytriattn import BudgetError, InvalidTokenError, StatsError, UnsupportedModelError
from pytriattn._native import core
from pytriattn.stats.layer_stats import LayerStats
from support.architecture_checks import WHOLE_KV3_BLOCKS
from support.tiny_context import Tiny, TinyContext, Tokens, calibrated

Array = npt.NDArray[np.float64]
Known = dict[tuple[int, int, int], Array]
"""(expected, received) by layer, head and token; foreseen by -1, -1 and token; whether it is a retrieval head by layer,
head and -1; the usual norm of a head's values by layer, head and -2.
"""
LEAST = 1e-5
EVERY = core.KeyScoreOptions(
    stride=1,
    value_power=0.5,
    received_value_power=1.5,
    decay=0.8,
    received_weight=2.0,
    question_weight=3.0,
    question_foreseen=1.5,
    question_forward=11,
    standing_weight=5.0,
    retrieval_share=0.4,
    least_retrieval_heads=1,
    other_heads=0.25,
    standing_questions=["who is it?", "where was it found?"],
)


def turned(layer: core.LayerStats, rows: Array, positions: npt.ArrayLike) -> Array:
    """RoPE of rows [n, head_dim] by the engine's own reference, which the golden vectors hold."""
    places = np.broadcast_to(positions, len(rows))
    return np.stack([core.testing.rotate(layer, row, float(p)) for row, p in zip(rows, places, strict=True)])


def features(layer: core.LayerStats, keys: Array, values: Array, positions: npt.NDArray[np.int32]) -> Array:
    """The features of keys after RoPE, from their definition; [n, n_features]."""
    before = turned(layer, keys, -positions) / layer.scale**2  # turning back multiplies once more
    bands = np.hypot(before[:, layer.band_dims[:, 0]], before[:, layer.band_dims[:, 1]])
    norms = [np.log(np.linalg.norm(rows, axis=-1) + 1e-6)[:, None] for rows in (values, before)]
    return np.concatenate([np.ones((len(keys), 1)), *norms, before, bands, values], axis=-1)


def attention(
    queries: Array, at: npt.NDArray[np.int32], keys: Array, positions: npt.NDArray[np.int32], scale: float, sinks: Array
) -> Array:
    """The most attention that keys [n, d] get from queries [m, n_heads, d] at positions `at`; `sinks` [n_heads] are
    logits that take a share.
    """
    products = np.einsum("mhd,nd->mhn", queries, keys) * scale
    products[np.broadcast_to((positions[None] > at[:, None])[:, None], products.shape)] = -np.inf
    highest = np.maximum(products.max(axis=-1, keepdims=True), sinks[None, :, None])
    weights = np.exp(products - highest)
    weights /= weights.sum(axis=-1, keepdims=True) + np.exp(sinks[None, :, None] - highest)
    return np.asarray(weights.max(axis=(0, 1)))


def note_retrieval_heads(context: core.Context, stats: core.Stats, known: Known) -> None:
    """Note down the KV heads, 0.4 of them, whose keys are expected to get the most attention."""
    view = context.eviction_view(0)
    sums = {}
    for index, (layer, of) in enumerate(zip(view.layers, stats.layers, strict=True)):
        rows = zip(layer.keys().astype(np.float64), layer.values().astype(np.float64), strict=True)
        for head, (keys, values) in enumerate(rows):
            x = features(of, keys, values, np.array(view.positions))
            sums[index, head] = float(np.exp(np.minimum(0.0, x @ of.fit[head])).sum())
    least = sorted(sums.values(), reverse=True)[max(1, int(0.4 * len(sums) + 0.5)) - 1]
    for place, total in sums.items():
        known[(*place, -1)] = np.array(total >= least)


def spread(got: Array, positions: npt.NDArray[np.int32], forward: int) -> Array:
    """The most attention of a key and of those that it stands up to 2 before and `forward` after."""
    behind = positions[:, None] - positions[None]
    return np.asarray(np.where((behind >= -2) & (behind <= forward), got[None], 0.0).max(axis=1))


def read_queries(context: core.Context, index: int, of: str) -> tuple[npt.NDArray[np.int32], Array]:
    """Positions [m] and queries [m, n_head, head_dim] of a layer, without the cache's rotation."""
    found = core.testing.queries(context, 0, index, of=of)
    rotation = core.testing.k_rotation(context)
    rows = found.rows.astype(np.float64)
    if rotation is not None and len(rows):
        rows = (rows.reshape(-1, len(rotation)) @ rotation).reshape(rows.shape)
    return found.positions, rows


def foreseen(
    context: core.Context, stats: core.Stats, known: Known, first_new: int, scale: float | None, sinks: list[Array]
) -> Array:
    """What standing questions look for, and 1.5 times what the question does, [n_keys]: the sum over retrieval heads,
    divided by their number or half that of all heads; 0 for keys that gain nothing now.
    """
    view = context.eviction_view(0)
    positions = np.array(view.positions)
    recent = positions >= first_new - 11
    found = []
    for index, (layer, of) in enumerate(zip(view.layers, stats.layers, strict=True)):
        alone = core.testing.queries(context, 0, index, of="standing")
        by = positions[-1] + 8
        rows = np.stack([turned(of, alone.rows[:, h].astype(np.float64), by) / of.scale for h in range(of.n_head)], 1)
        asked_at, asking = read_queries(context, index, "question")
        group = of.n_head // of.n_head_kv
        for head, keys in enumerate(layer.keys().astype(np.float64)):
            if not known[index, head, -1]:
                continue
            mine = slice(head * group, (head + 1) * group)
            rest = (keys, positions, scale or of.head_dim**-0.5, sinks[index][mine])
            standing = attention(rows[:, mine], alone.positions + by, *rest)[recent]
            asked = attention(asking[:, mine], asked_at, *rest)[recent]
            at = positions[recent]
            found.append(spread(standing, at, 8) + 1.5 * spread(asked, at, 11))
    result = np.zeros(len(positions))
    result[recent] = np.sum(found, axis=0) / max(len(found), sum(of.n_head_kv for of in stats.layers) / 2)
    return result


def expected_scores(
    context: core.Context, stats: core.Stats, known: Known, n_new: int, scale: float | None, sinks: list[Array]
) -> list[Array]:
    """Scores of all keys, [n_head_kv, n] a layer, after `n_new` tokens. Brings `known` up to date."""
    view = context.eviction_view(0)
    positions = np.array(view.positions)
    if (0, 0, -1) not in known:
        note_retrieval_heads(context, stats, known)
    asked_for = foreseen(context, stats, known, int(positions[-1]) + 1 - n_new, scale, sinks)
    for position, value in zip(positions, asked_for, strict=True):
        if position > positions[-1] - n_new - 11:  # below, positions of cells are not those of keys
            known[-1, -1, int(position)] = np.maximum(known.get((-1, -1, int(position)), 0.0), value)
    result = []
    for index, (layer, of) in enumerate(zip(view.layers, stats.layers, strict=True)):
        at, queries = read_queries(context, index, "text")
        asked_at, asking = read_queries(context, index, "question")
        keys, values, origins = layer.keys(), layer.values(), layer.origins()
        group = of.n_head // of.n_head_kv
        scores = []
        for head in range(of.n_head_kv):
            mine = slice(head * group, (head + 1) * group)
            k, v = keys[head].astype(np.float64), values[head].astype(np.float64)
            rest = (k, positions, scale or of.head_dim**-0.5, sinks[index][mine])
            got = attention(queries[:, mine], at, *rest) if len(at) else 0 * k[:, 0]
            for i, token in enumerate(origins[head]):
                key = (index, head, int(token))
                if key not in known:
                    assert positions[i] == token
                    x = features(of, k[i : i + 1], v[i : i + 1], origins[head][i : i + 1])[0]
                    known[key] = np.array([np.exp(min(0.0, float(x @ of.fit[head]))), 0.0])
                known[key][1] = max(0.8 ** (n_new / 128) * known[key][1], got[i])
            usual = known.setdefault((index, head, -2), np.exp(np.log(np.linalg.norm(v, axis=-1) + 1e-6).mean()))
            norms = np.linalg.norm(v, axis=-1) / usual
            worth, received = np.array([known[index, head, int(token)] for token in origins[head]]).T
            share = 5.0 if known[index, head, -1] else 0.25 * 5.0
            worth = worth + share * np.array([float(known[-1, -1, int(token)]) for token in origins[head]])
            if len(asked_at):
                worth += 3.0 * spread(attention(asking[:, mine], asked_at, *rest), origins[head], 11)
            scores.append((worth + LEAST) * norms**0.5 + 2.0 * received * norms**1.5)
        result.append(np.stack(scores))
    return result


@pytest.mark.parametrize(
    ("arch", "cache"),
    [("llama", "f32"), ("qwen3", "f32"), ("gemma3", "f32"), ("glm4", "f32"), ("gpt-oss", "f32"), ("qwen3", "q8_0")],
)
def test_scores_are_those_of_the_formula(
    tiny_folder: pathlib.Path, random_tokens: Tokens, arch: str, cache: str
) -> None:
    """Also after evictions: what is known of a key travels with its row, and attention received decays."""
    path = make_tiny_model(arch, tiny_folder, of_bytes=True)
    made = TinyContext(path, mode="fitted", budget=96, type_k=cache, type_v=cache, key_score=EVERY)
    context, known, done = made.context, {}, 0  # type: ignore[var-annotated]
    scale = 1.0 if arch == "gemma3" else None  # its queries have been scaled before
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    none = np.full(64, -np.inf)
    sinks = [tensors.get(f"blk.{layer.layer}.attn_sinks.weight", none) for layer in context.layers]
    context.set_question(0, random_tokens[300:310], 500)
    for n in (120, 20, 25):
        context.read(0, random_tokens[done : done + n], 0)
        done += n
        core.testing.scores(context)  # the standing questions are read before the first scores
        expected = expected_scores(context, made.stats, known, n, scale, sinks)
        for _ in range(2):  # a look changes nothing
            for mine, theirs in zip(expected, core.testing.scores(context), strict=True):
                np.testing.assert_allclose(theirs, mine, rtol=0.03 if cache == "q8_0" else 3e-3, atol=1e-5)
        context.evict()
    assert context.counters().n_evictions == 3


def test_each_key_is_read_from_the_cache_once(tiny: Tiny, random_tokens: Tokens) -> None:
    """An eviction gives new keys their score; old ones have it."""
    context = TinyContext(tiny("llama"), mode="fitted", budget=96).context
    context.read(0, random_tokens[:128], 0)
    for token in random_tokens[128:448]:
        context.step([0], [int(token)])
    assert context.counters().n_evictions == 11  # the last one at the end
    assert core.testing.keys_entered(context) == 448


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen3", "lfm2"])
@pytest.mark.parametrize("cache", ["f16", "q8_0"])
def test_a_question_is_read_alone_and_turned(tiny: Tiny, random_tokens: Tokens, arch: str, cache: str) -> None:
    question, position = random_tokens[:9], 3000
    alone = TinyContext(tiny(arch), mode="fitted", budget=96, key_score=EVERY).context
    made = TinyContext(tiny(arch), mode="fitted", budget=96, type_k=cache, type_v=cache)
    alone.read(0, question, 0)
    made.context.set_question(0, question, position)
    rotation = core.testing.k_rotation(made.context)
    for index, layer in enumerate(made.stats.layers):
        rows = core.testing.queries(alone, 0, index).rows
        of_question = core.testing.queries(made.context, 0, index, of="question")
        at, found = of_question.positions, of_question.rows
        assert at.tolist() == list(range(position, position + len(question)))
        for head in range(rows.shape[1]):
            expected = turned(layer, rows[:, head].astype(np.float64), position) / layer.scale
            if rotation is not None and cache == "q8_0":
                pieces = expected.reshape(-1, len(rotation)) @ rotation.astype(np.float64)
                expected = pieces.reshape(expected.shape)
            np.testing.assert_allclose(found[:, head], expected, atol=2e-2 * np.abs(expected).max())


def test_a_question_with_the_token_that_begins_a_text(tiny: Tiny, random_tokens: Tokens) -> None:
    """Its own positions are those of the question, not one further on."""
    context = TinyContext(tiny("llama"), mode="fitted").context
    context.set_question(0, random_tokens[:4], 50)
    assert core.testing.queries(context, of="question").positions.tolist() == [50, 51, 52, 53]
    context.set_question(0, [], 0)
    assert len(core.testing.queries(context, of="question").positions) == 0


@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2", "qwen3next", "falcon-h1"])
def test_a_second_reading_leaves_everything_as_it_was(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    """Logits afterwards are the same bit for bit, sliding windows and recurrent states included."""
    contexts = [TinyContext(tiny(arch), mode="fitted", budget=512, reread=reread).context for reread in (False, True)]
    for context in contexts:
        context.read(0, random_tokens[:150], 0)
    core.testing.read_again(contexts[1])
    for token in random_tokens[150:200]:
        for context in contexts:
            context.step([0], [int(token)])
        first, second = (np.array(context.logits(-1)) for context in contexts)
        np.testing.assert_array_equal(first, second)


def test_a_second_reading_leaves_the_logits(tiny: Tiny, random_tokens: Tokens) -> None:
    """They are there after every step, and after a prompt that ends where an eviction is due."""
    context = TinyContext(tiny("llama"), mode="fitted", budget=96, reread=True).context
    context.read(0, random_tokens[:128], 0)
    for token in random_tokens[128:300]:
        assert np.isfinite(np.array(context.logits(-1))).all()
        context.step([0], [int(token)])
        assert len(core.testing.cells(context)) <= 128
    assert context.counters().n_evictions == 6
    scores = context.score(random_tokens[300:500], 1)
    assert np.isfinite(scores.logprobs).all()
    assert context.counters().n_evictions == 12


def test_a_second_reading_takes_the_place_of_the_fit(tiny: Tiny, random_tokens: Tokens) -> None:
    """What a key is worth is then what the repeated text looks for."""
    options = core.KeyScoreOptions(use_received=False, value_power=0.0)
    made = TinyContext(tiny("llama"), mode="fitted", budget=96, interval=128, reread=True, key_score=options)
    context, n = made.context, 60  # 64 queries are kept at most
    context.read(0, random_tokens[:n], 0)
    fitted = core.testing.scores(context)
    core.testing.read_again(context)
    found = core.testing.scores(context)
    twice = TinyContext(tiny("llama"), mode="fitted", budget=512, key_score=EVERY)
    twice.context.read(0, random_tokens[:n], 0)
    twice.context.read(0, random_tokens[:n], 0)
    view = twice.context.eviction_view(0)
    for index, (layer, of) in enumerate(zip(view.layers, made.stats.layers, strict=True)):
        both = core.testing.queries(twice.context, 0, index)
        at, queries = both.positions, both.rows
        keys = layer.keys().astype(np.float64)
        for head in range(of.n_head_kv):
            group = of.n_head // of.n_head_kv
            mine = queries[at >= n][:, head * group : (head + 1) * group].astype(np.float64)
            rest = (keys[head], np.array(view.positions), of.head_dim**-0.5, np.full(group, -np.inf))
            got = attention(mine, at[at >= n], *rest)[:n]
            np.testing.assert_allclose(found[index][head], got + LEAST, rtol=2e-2, atol=1e-5)
        assert not np.allclose(found[index], fitted[index], rtol=0.1)


@pytest.mark.parametrize("arch", ["gemma3", "lfm2"])
def test_a_second_reading_that_could_not_be_taken_back_is_refused(tiny: Tiny, arch: str) -> None:
    """At once, and not in the middle of a text."""
    with pytest.raises(UnsupportedModelError, match="sliding window or a recurrent state.*reread=False or n_seq_max=1"):
        TinyContext(tiny(arch), mode="fitted", reread=True, n_seq_max=2)
    assert TinyContext(tiny(arch), mode="fitted", n_seq_max=2).context
    assert TinyContext(tiny("llama"), mode="fitted", reread=True, n_seq_max=2).context


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
def test_calibration_asks_what_a_second_reading_looks_for(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    """Its targets: the most attention of 128 tokens and 32 before them, read once more behind what they end."""
    tokens, given = random_tokens[:200], {}
    model = core.Model(str(tiny(arch)))
    native = core.calibrate(
        model,
        tokens,
        n_ctx=256,
        n_ubatch=128,
        n_threads=2,
        on_keys=lambda layer, head, x, y: given.update({(layer, head): (x, y)}),
    )
    sizes = {(i, head) for i, layer in enumerate(native.layers) for head in range(layer.n_head_kv)}
    most = {place: np.zeros(200) for place in sizes}
    for begin, end in ((0, 128), (40, 200)):
        context = TinyContext(tiny(arch), mode="fitted", budget=512, key_score=EVERY).context
        context.read(0, tokens[:end], 0)
        for piece in (tokens[begin : begin + 64], tokens[begin + 64 : end]):  # 128 queries wait at most
            context.read(0, piece, 0)
            view = context.eviction_view(0)
            for index, (layer, of) in enumerate(zip(view.layers, native.layers, strict=True)):
                at, queries = read_queries(context, index, "text")
                again = at >= end
                group = of.n_head // of.n_head_kv
                for head, keys in enumerate(layer.keys().astype(np.float64)):
                    mine = queries[again][:, head * group : (head + 1) * group]
                    rest = (keys, np.array(view.positions), of.head_dim**-0.5, np.full(group, -np.inf))
                    got = attention(mine, at[again], *rest)[begin:end]
                    most[index, head][begin:end] = np.maximum(most[index, head][begin:end], got)
    assert given.keys() == most.keys()
    for index, head in sizes:
        x, y = given[index, head]
        np.testing.assert_allclose(y, np.log(most[index, head][8:] + LEAST), atol=0.05)  # but for the first 8, sinks
        layer = view.layers[index]
        expected = features(
            native.layers[index],
            layer.keys()[head][8:200].astype(np.float64),
            layer.values()[head][8:200].astype(np.float64),
            np.arange(8, 200, dtype=np.int32),
        )
        np.testing.assert_allclose(x, expected, rtol=1e-2, atol=1e-2)


def test_saved_states_go_on_exactly(tiny_folder: pathlib.Path, random_tokens: Tokens) -> None:
    """With the attention that keys have received, the queries that wait, the question, and the retrieval heads."""
    path = make_tiny_model("llama", tiny_folder, of_bytes=True)
    for reread in (False, True):
        made = [TinyContext(path, mode="fitted", budget=96, reread=reread, key_score=EVERY) for _ in range(2)]
        contexts = [one.context for one in made]
        contexts[0].set_question(0, random_tokens[300:310], 400)
        contexts[0].read(0, random_tokens[:150], 0)
        contexts[1].load(contexts[0].save())
        for token in random_tokens[150:300]:
            for context in contexts:
                context.step([0], [int(token)])
        first, second = (np.array(context.logits(-1)) for context in contexts)
        np.testing.assert_array_equal(first, second)
        assert contexts[0].counters().n_evictions >= contexts[1].counters().n_evictions > 0


def test_batches_choose_as_single_texts_do(tiny: Tiny, random_tokens: Tokens) -> None:
    texts = [random_tokens[:200], random_tokens[200:400], random_tokens[100:300]]
    together = TinyContext(tiny("llama"), mode="fitted", budget=96, n_seq_max=3, type_k="f32", type_v="f32").context
    for i in range(200):
        together.step([0, 1, 2], [int(text[i]) for text in texts])
    heads = [(layer.layer, head) for layer in together.layers for head in range(layer.n_head_kv)]
    for seq, text in enumerate(texts):
        alone = TinyContext(tiny("llama"), mode="fitted", budget=96, type_k="f32", type_v="f32").context
        for token in text:
            alone.step([0], [int(token)])
        same = [np.isin(alone.kept_positions(0, *head), together.kept_positions(seq, *head)).mean() for head in heads]
        assert np.mean(same) > 0.97  # matrix products of other sizes round otherwise


def test_steps_and_chunks_look_at_the_same_queries(tiny: Tiny, random_tokens: Tokens) -> None:
    contexts = [TinyContext(tiny("qwen3"), mode="fitted", budget=256).context for _ in range(2)]
    contexts[0].read(0, random_tokens[:100], 0)
    for token in random_tokens[:100]:
        contexts[1].step([0], [int(token)])
    found, other = (core.testing.queries(context) for context in contexts)
    assert found.positions.tolist() == other.positions.tolist() == list(range(15, 100, 16))
    np.testing.assert_allclose(found.rows, other.rows, atol=5e-3 * np.abs(found.rows).max())


def test_bad_input(tiny: Tiny, random_tokens: Tokens) -> None:
    path = tiny("llama")
    model = core.Model(str(path))
    with pytest.raises(StatsError, match="no fitted weights.*calibrate again"):
        TinyContext(path, mode="fitted", stats=calibrated(model, fit=False))
    narrow = [LayerStats.from_native(layer) for layer in calibrated(model, fit=True).layers]
    narrow = [replace(layer, fit=layer.fit[:, :-1]) for layer in narrow if layer.fit is not None]
    with pytest.raises(StatsError, match="fitted weights for layer 0, the model needs.*calibrate again"):
        TinyContext(path, mode="fitted", stats=core.Stats([layer.to_native() for layer in narrow], 256))
    with pytest.raises(BudgetError, match="decay is"):
        core.KeyScoreOptions(decay=1.5)
    with pytest.raises(BudgetError, match="reread.*fitted"):
        core.EvictionConfig(mode="recent", budget=96, window=16, reread=True)
    context = TinyContext(path, mode="fitted").context
    with pytest.raises(InvalidTokenError, match="129 tokens is too long.*128"):
        context.set_question(0, random_tokens[:129], 0)
    with pytest.raises(InvalidTokenError, match="vocabulary"):
        context.set_question(0, [10**6], 0)
    published = TinyContext(path).context
    published.set_question(0, random_tokens[:9], 5)  # of no use there
    assert not published.takes_questions


@pytest.mark.parametrize("cache", ["f16", "q8_0", "kv3"])
@pytest.mark.parametrize("arch", ["qwen3", "gemma3", "deepseek2-full"])
def test_copied_rows_give_the_same_scores(tiny: Tiny, random_tokens: Tokens, arch: str, cache: str) -> None:
    """As on devices that cannot multiply by the cache as it lies. Rounding queries for the product costs a little."""
    if cache == "kv3" and arch not in WHOLE_KV3_BLOCKS:
        pytest.skip("kv3 does not fit the heads of this model")
    first = TinyContext(tiny(arch), mode="fitted", type_k=cache, type_v=cache)
    second = TinyContext(tiny(arch), mode="fitted", stats=first.stats, type_k=cache, type_v=cache)
    core.testing.read_keys_from_rows(second.context)
    for tiny_context in (first, second):
        tiny_context.context.read(0, random_tokens[:110], 0)
    for found, expected in zip(*(core.testing.scores(of.context) for of in (second, first)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.02 if cache == "f16" else 0.1)
    for tiny_context in (first, second):
        tiny_context.context.read(0, random_tokens[110:200], 0)
    assert second.context.counters().n_evictions == first.context.counters().n_evictions > 0


REFUSED = {
    "plm": "no flash attention",
    "grok": "no flash attention",
    "lfm2-sliding": "no layer of this model has full attention",
    "minimax-m3": "neither a plain",
    "bloom": "ALiBi",
    "mpt": "ALiBi",
    "refact": "ALiBi",
    "baichuan-alibi": "ALiBi",
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_has_it_or_is_refused(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    """With a question, and every second one with a second reading."""
    options: dict[str, Any] = {"mode": "fitted", "n_ctx": 512, "reread": len(arch) % 2 == 0}
    if arch in REFUSED:
        with pytest.raises(UnsupportedModelError, match=REFUSED[arch]):
            TinyContext(tiny(arch), **options)
        return
    context = TinyContext(tiny(arch), **options).context
    context.set_question(0, random_tokens[:9], 390)
    context.read(0, random_tokens[:200], 0)
    for token in random_tokens[200:240]:
        context.step([0], [int(token)])
    assert context.counters().n_evictions >= 2
    assert np.isfinite(np.array(context.logits(-1))).all()
