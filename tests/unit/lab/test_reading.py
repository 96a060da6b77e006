"""Reading documents of a tiny model: every question finds the cache as the text left it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytriattn import Llama
from pytriattn.lab.documents import Document, Question
from pytriattn.lab.reading import read_document
from support.tiny_context import Tiny, Tokens

BUDGET: dict[str, Any] = {"budget": 128, "mode": "recent", "window": 16}


def make_document(tokens: Tokens, stops: tuple[int, ...] = (384, 500), n_prompt: int = 0, **more: Any) -> Document:
    rng = np.random.default_rng(1)
    questions = tuple(
        Question(
            "facts",
            stop,
            rng.integers(0, 250, 6, dtype=np.int32),
            rng.integers(0, 250, 4, dtype=np.int32),
            scored=np.array([True, True, False, True]),
        )
        for stop in stops
        for _ in range(3)
    )
    return Document(tokens[:600], questions, None, n_prompt, 384, **more)


# gemma3: sliding windows, where going back needs a saved state
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("options", [{}, BUDGET], ids=["full", "budget"])
def test_questions_do_not_disturb_each_other(tiny: Tiny, random_tokens: Tokens, arch: str, options: dict) -> None:
    document = make_document(random_tokens)
    with Llama(tiny(arch), n_threads=1, n_ctx=1024, **options) as llm:
        reading = read_document(llm, document)
        assert (reading.n_evictions > 0) == bool(options)
        for question, answered in zip(document.questions, reading.answers, strict=True):
            text = np.concatenate([document.tokens[: question.at], question.prompt, question.answer])
            alone = llm.logprobs(text)[-4:]
            assert answered.logprob == pytest.approx(float(alone[[0, 1, 3]].sum()), abs=0.03)
            assert answered.n_scored == 3


def test_a_pinned_prompt_stays(tiny: Tiny, random_tokens: Tokens) -> None:
    document = make_document(random_tokens, n_prompt=30)
    kept = []
    for is_pinned in (False, True):
        with Llama(tiny("llama"), n_threads=1, n_ctx=1024, protect_prompt=is_pinned, **BUDGET) as llm:
            read_document(llm, document, is_pinned=is_pinned)
            positions = llm.kept_positions(llm.attention_layers[0], 0)
            kept.append(int((positions < 30).sum()))
    assert kept == [4, 30]


def test_a_rule_that_reads_the_question_gets_text_and_question_as_one_prompt(
    tiny: Tiny, random_tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = make_document(random_tokens, stops=(384,))
    prompts = []
    with Llama(tiny("llama"), n_threads=1, n_ctx=1024, **BUDGET) as llm:
        read = llm.read_prompt

        def noted(tokens: Tokens, question: tuple[int, int]) -> None:
            prompts.append(tokens.tolist())
            assert question == (384, len(tokens))
            read(tokens, question=question)

        monkeypatch.setattr(llm, "read_prompt", noted)
        answers = read_document(llm, document, reads_question=True).answers
    assert len(answers) == len(prompts) == 3
    for question, prompt in zip(document.questions, prompts, strict=True):
        assert prompt == [*document.tokens[:384].tolist(), *question.prompt[:-1].tolist()]


def test_predictions_are_compared_with_the_full_caches(tiny: Tiny, random_tokens: Tokens) -> None:
    question = Question("replay", 199, random_tokens[199:200], random_tokens[200:600])
    document = Document(random_tokens[:199], (question,), None, 0, 600, keeps_distributions=True)
    with Llama(tiny("llama"), n_threads=1, n_ctx=1024) as llm:
        full = read_document(llm, document)
        again = read_document(llm, document, reference=full.reference)
        expected = llm.logprobs(random_tokens[:600])[199:]
    assert full.reference is not None and full.reference.tokens.shape == (400, 128)
    for reading in (full, again):
        (answered,) = reading.answers
        assert answered.top1 == 1.0 and answered.first_mismatch == 400
        assert answered.divergence == pytest.approx(0.0, abs=1e-4)
        assert answered.logprob == pytest.approx(float(expected.sum()), rel=1e-4)
    with Llama(tiny("llama"), n_threads=1, n_ctx=1024, **BUDGET) as llm:
        (budgeted,) = read_document(llm, document, reference=full.reference).answers
    assert budgeted.divergence is not None and budgeted.divergence > 1e-4
    assert budgeted.top1 is not None and budgeted.top1 < 1.0
    assert budgeted.first_mismatch is not None and budgeted.first_mismatch < 400


def test_lists_are_looked_for_in_what_is_generated(
    tiny: Tiny, random_tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_document(random_tokens, stops=(384,)).questions[0]
    question = Question("ruler-vt", 384, first.prompt, first.answer, references=("ABC", "XYZ"))
    document = Document(random_tokens[:384], (question, question), None, 0, 384)
    with Llama(tiny("llama"), n_threads=1, n_ctx=1024, **BUDGET) as llm:
        said: list[list[int]] = []

        def noted(tokens: list[int]) -> str:
            said.append(list(tokens))
            return "it is ABC"

        monkeypatch.setattr(llm, "detokenize", noted)
        answers = read_document(llm, document).answers
    assert [answer.found for answer in answers] == [0.5, 0.5]
    assert answers[0].logprob == pytest.approx(answers[1].logprob, abs=1e-4)
    assert said[0] == said[1] and len(said[0]) == 4 + 16
