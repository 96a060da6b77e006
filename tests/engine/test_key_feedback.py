"""How contexts store kv3 keys: with errors that queries see little of, as a short text has shown beforehand."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from pytriattn import Llama
from pytriattn._native import core
from support.kv3 import read_feedback
from support.paths import ROOT
from support.tiny_context import Tiny, TinyContext, Tokens

RIDGE = 6.4


@pytest.mark.parametrize("d", [64, 256])
def test_the_feedback_is_the_decomposition_of_the_squares(d: int) -> None:
    """W = M^T D M, but for the eight bits of M."""
    rng = np.random.default_rng(d)
    rows = rng.standard_normal((40, d)) @ rng.standard_normal((d, d)) + 3 * rng.standard_normal(d)
    square = rows.T @ rows
    weight, back = read_feedback(core.testing.solve_feedback(square), d)
    m = back.T + np.eye(d)
    expected = square / np.trace(square) * d + RIDGE / d * np.eye(d)
    found = m.T @ np.diag(weight) @ m
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    assert np.linalg.norm(expected - np.diag(np.diag(expected))) > 0.5 * np.linalg.norm(expected)  # it is no diagonal


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_queries_that_say_nothing_change_nothing(wrong: float) -> None:
    weight, back = read_feedback(core.testing.solve_feedback(np.full((64, 64), wrong)), 64)
    assert np.ptp(weight) == 0 < weight[0]
    assert not back.any()


def test_only_keys_of_the_type_have_it(tiny: Tiny) -> None:
    for type_k, type_v, expected in [("kv3", "kv3", 3), ("kv3", "f16", 3), ("q8_0", "kv3", 0)]:
        context = TinyContext(tiny("qwen3"), budget=None, type_k=type_k, type_v=type_v).context
        assert core.testing.store_nearest(context) == expected


def test_a_new_context_is_empty_and_like_any_other(tiny: Tiny, random_tokens: Tokens) -> None:
    """The text that it has read leaves nothing behind."""
    logits = []
    for _ in range(2):
        context = TinyContext(tiny("qwen3"), budget=None, type_k="kv3", type_v="kv3").context
        assert context.n_tokens() == 0
        assert core.testing.cells(context) == []
        assert context.counters().n_decoded == 0
        context.read(0, random_tokens[:100], 0)
        logits.append(context.logits().copy())
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.slow
def test_a_real_model_differs_less_from_itself(smollm2: pathlib.Path) -> None:
    """Its probabilities are nearer to those with f16 than where keys are stored as the nearest levels."""
    text = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
    with Llama(smollm2, n_ctx=64) as llm:
        tokens = np.array(llm.tokenize(text)[:384], dtype=np.int32)
    model = core.Model(str(smollm2))

    def logprobs(type_k: str, nearest: bool = False) -> np.ndarray:
        params = core.DecoderParams(n_ctx=512, n_threads=1, type_k=type_k, type_v="f16", flash_attn="on")
        context = core.Context(model, params, None)
        if nearest:
            assert core.testing.store_nearest(context) == 30
        context.score(tokens, len(tokens))
        first = len(tokens) - 128
        rows = np.stack([context.logits(row - len(tokens)) for row in range(first, len(tokens))]).astype(np.float64)
        rows -= rows.max(1, keepdims=True)
        return rows - np.log(np.exp(rows).sum(1, keepdims=True))

    exact = logprobs("f16")
    divergence = {
        nearest: float((np.exp(exact) * (exact - logprobs("kv3", nearest))).sum(1).mean()) for nearest in (False, True)
    }
    assert divergence[False] < 0.7 * divergence[True], divergence
