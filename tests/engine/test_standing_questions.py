"""Standing questions: what anybody might ask of a text is looked for while it is read."""

from __future__ import annotations

import pathlib

import numpy as np
import numpy.typing as npt
import pytest

from models.registry import make_tiny_model
from pytriattn import BudgetError, KeyScoreOptions, Llama, TriAttentionStats
from pytriattn._native import core
from support.tiny_context import Tiny, TinyContext, Tokens

FACT = " The number of houses in Ashford is 4712."


def standing(context: core.Context) -> npt.NDArray[np.int32]:
    """Return where the standing questions' queries were read, alone."""
    return core.testing.queries(context, of="standing").positions


def made(path: pathlib.Path, **options: object) -> core.Context:
    return TinyContext(path, mode="fitted", budget=96, key_score=core.KeyScoreOptions(**options)).context


def test_they_are_read_before_the_first_eviction_and_not_earlier(
    tiny_folder: pathlib.Path, random_tokens: Tokens
) -> None:
    """The queries of the last three tokens of each, all read from the same position on."""
    context = made(make_tiny_model("llama", tiny_folder, of_bytes=True), standing_questions=["who?", "what is it?"])
    context.read(0, random_tokens[:110], 0)
    assert standing(context).tolist() == []
    context.evict()
    assert context.counters().n_evictions == 1
    first, second = standing(context)[:3], standing(context)[3:]
    assert np.diff(first).tolist() == np.diff(second).tolist() == [1, 1]
    assert second[0] - first[0] == len("what is it?") - len("who?")


def test_models_without_words_and_a_weight_of_zero_have_none(
    tiny: Tiny, tiny_folder: pathlib.Path, random_tokens: Tokens
) -> None:
    for context in (
        made(tiny("llama")),
        made(make_tiny_model("llama", tiny_folder, of_bytes=True)),
        made(make_tiny_model("llama", tiny_folder, of_bytes=True), standing_weight=0.0),
        made(make_tiny_model("llama", tiny_folder, of_bytes=True), standing_questions=[]),
    ):
        context.read(0, random_tokens[:150], 0)
        assert context.counters().n_evictions == 1
        assert len(standing(context)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standing_weight": -1.0}, "standing_weight is -1"),
        ({"question_foreseen": -1.0}, "question_foreseen is -1"),
        ({"question_forward": -1}, "question_forward is -1"),
        ({"retrieval_share": 0.0}, "retrieval_share is 0.*above 0"),
        ({"least_retrieval_heads": 0}, "least_retrieval_heads is 0.*at least 1"),
        ({"other_heads": 1.5}, "other_heads is 1.5.*from 0 to 1"),
        ({"standing_questions": ["", "who?"]}, "standing question '' has 0 tokens"),
        ({"standing_questions": ["who?" * 40]}, "has 160 tokens.*at most 128"),
    ],
)
def test_bad_input(tiny_folder: pathlib.Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        made(make_tiny_model("llama", tiny_folder, of_bytes=True), **options)


def test_all_heads_count_where_nothing_tells_them_apart(tiny_folder: pathlib.Path, random_tokens: Tokens) -> None:
    """Without a fit, heads expect nothing: all are retrieval heads, and each key gets what is foreseen."""
    path = make_tiny_model("llama", tiny_folder, of_bytes=True)
    options = {"use_received": False, "value_power": 0.0, "other_heads": 0.0, "standing_questions": ["who is it?"]}
    for use_fit, least in ((False, 1), (True, 1), (True, 99)):
        context = made(path, use_fit=use_fit, least_retrieval_heads=least, **options)
        context.read(0, random_tokens[:110], 0)
        core.testing.scores(context)
        with_questions = core.testing.scores(context)
        alone = made(path, use_fit=use_fit, **{**options, "standing_weight": 0.0})
        alone.read(0, random_tokens[:110], 0)
        gained = [
            bool((rows > others + 1e-4).any())
            for layer, other in zip(with_questions, core.testing.scores(alone), strict=True)
            for rows, others in zip(layer, other, strict=True)
        ]
        assert any(gained) and all(gained) == (not use_fit or least == 99)


def test_a_question_is_foreseen_where_there_are_no_standing_ones(tiny: Tiny, random_tokens: Tokens) -> None:
    """All keys of a token gain by what the question looks for, from their first scores on."""
    scores = {}
    for foreseen, n_question in ((0.0, 9), (2.0, 9), (2.0, 0)):
        context = made(tiny("llama"), question_weight=0.0, question_foreseen=foreseen, other_heads=1.0)
        context.set_question(0, random_tokens[300 : 300 + n_question], 200)
        context.read(0, random_tokens[:110], 0)
        scores[foreseen, n_question] = np.concatenate(core.testing.scores(context))  # [heads, n_keys]
    gained = scores[2.0, 9] - scores[0.0, 9]
    assert (gained >= 0.0).all() and (gained > 0.0).all(axis=0).any()
    np.testing.assert_array_equal(scores[2.0, 0], scores[0.0, 9])


def share_of_fact(llm: Llama, text: str) -> float:
    """Read text, a fact and text; return the share of the fact's keys that are left in all heads."""
    before, after = text[:1500], text[1500:5000]
    begin, end = len(llm.tokenize(before)), len(llm.tokenize(before + FACT))
    llm.eval(llm.tokenize(before + FACT + after))
    fact = np.arange(begin + 1, end)
    return float(np.mean([np.isin(fact, llm.kept_positions(*head)).mean() for head in llm.attention_heads]))


def test_a_fact_outlives_its_text(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str) -> None:
    """Nobody has asked for it yet; heads keep it together."""
    found = {}
    for weight in (0.0, KeyScoreOptions().standing_weight):
        key_score = KeyScoreOptions(standing_weight=weight)
        with Llama(smollm2, triattn_stats=smollm2_stats, budget=256, n_ctx=2048, key_score=key_score) as llm:
            found[weight] = share_of_fact(llm, long_text)
            assert llm.kv_stats()["evictions"] >= 4
    assert found.pop(0.0) + 0.2 < next(iter(found.values()))
