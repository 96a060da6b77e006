"""What of a prompt is its question, and what that is good for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pytriattn import (
    BudgetError,
    InvalidTokenError,
    KeyScoreOptions,
    Llama,
    StatsError,
    StatsWarning,
    TriAttentionStats,
)
from pytriattn.generation.question import find_question
from support.made_stats import without_fit

QUESTION = "\n\nQuestion: What is the code of the vault in the old harbour?\nAnswer: The code of the vault is"


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> Iterator[Llama]:
    """Return a model without standing questions: what the question does can be seen."""
    alone = KeyScoreOptions(standing_weight=0.0)
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=256, n_ctx=4096, key_score=alone) as llm:
        yield llm


@pytest.fixture(scope="module")
def prompt(long_text: str) -> str:
    return (
        "A report.\n"
        + long_text[2000:4000]
        + "\nThe code of the vault in the old harbour is 7319.\n"
        + long_text[8000:12500]
        + QUESTION
    )


@pytest.mark.slow
def test_what_is_asked_at_the_end_chooses_what_is_kept(llm: Llama, prompt: str, smollm2: pathlib.Path) -> None:
    """A number that was stated once, four budgets ago, is known nearly as with the full cache."""
    answer = llm.tokenize(" 7319", add_bos=False)
    known = {}
    for question in (None, "auto"):
        llm.reset()
        llm.generate(llm.tokenize_prompt(prompt), 1, question=question)
        assert llm.kv_stats()["evictions"] > 0
        known[question] = sum(answer_logprobs(llm, answer))
    with Llama(smollm2, n_ctx=4096) as full:
        full.eval(full.tokenize_prompt(prompt))
        best = sum(answer_logprobs(full, answer))
    assert known["auto"] > known[None] + 0.5 * (best - known[None])
    assert best - known[None] > 2.0


def answer_logprobs(llm: Llama, answer: list[int]) -> Iterator[float]:
    for token in answer:
        logits = llm.logits.astype(np.float64)
        yield logits[token] - np.logaddexp.reduce(logits)
        llm.eval([token])


@pytest.mark.slow
def test_kv_stats_tell_which_tokens_were_taken(llm: Llama, prompt: str) -> None:
    n = len(llm.tokenize_prompt(prompt))
    llm(prompt, max_tokens=1)
    assert llm.kv_stats()["question"] == (n - 64, n)
    llm(prompt + "?", max_tokens=1, question=20)
    assert llm.kv_stats()["question"] == (n + 1 - 20, n + 1)
    llm(prompt, max_tokens=1, question="What is the code of the vault in the old harbour?")
    begin, end = llm.kv_stats()["question"] or (0, 0)
    assert "What is the code of the vault in the old harbour?" in llm.detokenize(llm.tokenize_prompt(prompt)[begin:end])
    llm(prompt, max_tokens=1, question=None)
    assert llm.kv_stats()["question"] is None
    llm("A short prompt that is never evicted from.", max_tokens=1)
    assert llm.kv_stats()["question"] is None


@pytest.mark.slow
def test_the_last_user_message_is_a_chats_question(llm: Llama, prompt: str) -> None:
    messages = [
        {"role": "user", "content": prompt.replace(QUESTION, "")},
        {"role": "assistant", "content": "I have read it."},
        {"role": "user", "content": "And what is the code of the vault?"},
    ]
    llm.create_chat_completion(messages, max_tokens=1)
    begin, end = llm.kv_stats()["question"] or (0, 0)
    taken = llm.detokenize(llm.tokens[begin:end])
    assert taken.strip() == "And what is the code of the vault?"
    llm.create_chat_completion(messages, max_tokens=1, question=20)
    assert llm.kv_stats()["question"] == (len(llm.tokens) - 20, len(llm.tokens))
    llm.create_chat_completion(messages, max_tokens=1, question=None)
    assert llm.kv_stats()["question"] is None
    llm.create_chat_completion(messages, max_tokens=1, question="I have read it.")
    begin, end = llm.kv_stats()["question"] or (0, 0)
    assert llm.detokenize(llm.tokens[begin:end]).strip() == "I have read it."


@pytest.mark.slow
def test_each_turn_of_a_chat_has_a_question_of_its_own(llm: Llama, prompt: str, long_text: str) -> None:
    """The cache, evicted from, is gone on with; the new question chooses from then on, among new text too."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    said = llm.create_chat_completion(messages, max_tokens=4)["choices"][0]["message"]["content"]  # type: ignore[index]
    note = "The name of the ship in the new harbour is Albatross.\n"
    asked = "What is the name of the ship in the new harbour? It is called the"
    text = long_text[13000:14000] + note + long_text[14000:17000] + asked
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": text}]
    kept: dict[str | None, Any] = {}
    for question in (asked, "auto", None):
        llm.reset()
        llm.create_chat_completion(messages[:1], max_tokens=4)
        first = llm.kv_stats()
        llm.create_chat_completion(messages, max_tokens=1, question=question)
        second = llm.kv_stats()
        assert first["evictions"] > 0
        assert second["prompt_tokens_reused"] > first["prompt_tokens_reused"] + 1000
        begin, end = second["question"] or (0, 0)
        assert (llm.detokenize(llm.tokens[begin:end]).strip().endswith(asked)) == (question is not None)
        place = find_question(llm, np.array(llm.tokens), note)
        assert place is not None
        heads = [llm.kept_positions(*head) for head in llm.attention_heads]
        kept[question] = np.mean([((at >= place.begin) & (at < place.end)).sum() for at in heads])
    assert kept[asked] > kept[None] + 2  # of 14 tokens that answer
    assert kept["auto"] > kept[None] + 0.5  # the last 64 tokens, most of them no question


@pytest.mark.slow
def test_each_prompt_of_a_batch_has_a_question(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, prompt: str
) -> None:
    prompts = [prompt, prompt.replace("7319", "2846")]
    alone = KeyScoreOptions(standing_weight=0.0)
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=256, n_ctx=4096, n_seq_max=2, key_score=alone) as llm:
        found = {
            question: [
                one["choices"][0]["text"] for one in llm.generate_batch(prompts, 6, temperature=0, question=question)
            ]
            for question in ("auto", "What is the code of the vault in the old harbour?", None)
        }
        assert llm.kv_stats()["question"] is None  # nothing is left of them
        with pytest.raises(ValueError, match="not in the prompt"):
            llm.generate_batch([*prompts, "Another text."], 1, question="What is the code")
    for question, texts in found.items():
        assert ["7319" in texts[0], "2846" in texts[1]] == [question is not None] * 2


def test_where_a_question_stands(llm: Llama) -> None:
    tokens = np.array(llm.tokenize_prompt("One? Two? Three? And one? Done."), dtype=np.int32)
    assert find_question(llm, tokens, "auto") == (0, len(tokens))
    assert find_question(llm, tokens, 3) == (len(tokens) - 3, len(tokens))
    assert find_question(llm, tokens, 100) == (0, len(tokens))
    assert find_question(llm, tokens, 0) is None
    assert find_question(llm, tokens, None) is None
    begin, end = find_question(llm, tokens, "Two? Three?") or (0, 0)
    assert llm.detokenize(tokens[begin:end]).strip() == "Two? Three?"
    begin, end = find_question(llm, tokens, "one?") or (0, 0)
    assert end > 8  # the last one


def test_bad_questions(llm: Llama, prompt: str) -> None:
    for value, message in ((-1, "from 0 to 128"), (129, "from 0 to 128"), ("What is love?", "not in the prompt")):
        with pytest.raises(ValueError, match=message):
            llm(prompt, max_tokens=1, question=value)
    with pytest.raises(TypeError):
        llm(prompt, max_tokens=1, question=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTokenError, match="too long"):
        llm.set_question(llm.tokenize("word " * 200))


def test_a_question_longer_than_the_budget(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    """It is refused before anything changes. One that nobody named is cut."""
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=48, n_ctx=1024) as llm:
        llm.eval(llm.tokenize("Some text."))
        before, text = llm.tokens, long_text[:1200]
        for question in (49, text[-400:]):
            with pytest.raises(BudgetError, match="is longer than the budget of 48.*raise the budget"):
                llm(text, max_tokens=1, question=question)
        with pytest.raises(BudgetError, match="a question of 60 tokens is longer than the budget of 48"):
            llm.set_question(llm.tokenize(text)[:60])
        assert llm.tokens == before
        llm(text, max_tokens=1, question=48)
        assert llm.kv_stats()["question"] == (len(llm.tokens) - 48, len(llm.tokens))
        llm(text, max_tokens=1)
        assert llm.kv_stats()["question"] == (len(llm.tokens) - 48, len(llm.tokens))


def test_old_statistics_choose_by_the_published_score(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    old = without_fit(smollm2_stats)
    kept = []
    with (
        pytest.warns(StatsWarning, match="no fitted weights.*pytriattn-calibrate"),
        Llama(smollm2, triattn_stats=old, budget=512, n_ctx=1024) as fallen_back,
        Llama(smollm2, triattn_stats=old, budget=512, n_ctx=1024, mode="per_layer_head") as published,
    ):
        for llm in (fallen_back, published):
            assert not llm.takes_questions
            llm(long_text[:3500], max_tokens=1)
            assert llm.kv_stats()["evictions"] > 0
            kept.append([llm.kept_positions(*head) for head in llm.attention_heads])
    for mine, theirs in zip(*kept, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_old_statistics_are_refused_where_the_default_is_named(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats
) -> None:
    """Before the weights are read."""
    loaded: list[float] = []
    with pytest.raises(StatsError, match="no fitted weights.*mode='fitted'.*pytriattn-calibrate.*per_layer_head"):
        Llama(smollm2, triattn_stats=without_fit(smollm2_stats), budget=256, mode="fitted", progress=loaded.append)
    assert not loaded
    unfitted = KeyScoreOptions(use_fit=False)
    Llama(smollm2, triattn_stats=without_fit(smollm2_stats), budget=256, mode="fitted", key_score=unfitted).close()


@pytest.mark.slow
def test_a_question_for_those_who_read_by_eval(llm: Llama, prompt: str) -> None:
    tokens = llm.tokenize_prompt(prompt)
    llm.reset()
    llm.set_question(tokens[-40:], len(tokens) - 40)
    llm.eval(tokens)
    assert llm.kv_stats()["question"] == (len(tokens) - 40, len(tokens))
    llm.set_question([])
    assert llm.kv_stats()["question"] is None
