"""Tasks: the same seed gives the same documents, of the right length, whose floor tells something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pytriattn import EvalResults, EvalSettings, LabError, Llama
from pytriattn.lab import grid
from pytriattn.lab.documents import Tokens
from pytriattn.lab.grid import Subject, check_fits, jobs_of, write_documents
from pytriattn.lab.results import FLOOR, NOTHING
from pytriattn.lab.settings import QUICK
from pytriattn.lab.tasks import FAMILIES, TASKS, families_of
from pytriattn.lab.writing.source import SourceText

N = 1024


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=256) as llm:
        yield llm


@pytest.fixture
def write(llm: Llama, monkeypatch: pytest.MonkeyPatch):
    """Write documents; what a model would have to generate is a piece of the text."""

    def said(llm: Llama, tokens: Tokens, n: int, *, is_greedy: bool, seed: int) -> Tokens:
        return np.resize(tokens, n)

    monkeypatch.setattr(grid, "generate_after", said)

    def write(tasks: Sequence[str] = TASKS, documents: int = 1, **settings: object) -> list[Subject]:
        run = EvalSettings(tasks=tasks, documents=documents, tokens=N, **settings)
        return write_documents(llm, run, SourceText.load(None), EvalResults({}))

    return write


def test_documents_are_as_long_as_asked_for_and_questions_lie_in_them(write) -> None:
    subjects = write()
    assert [subject.family for subject in subjects] == list(FAMILIES)
    for subject in subjects:
        name, document = subject.family.name, subject.document
        assert document.length == (2 * N if name == "perplexity" else N), name
        stops = [question.at for question in document.questions]
        assert stops == sorted(stops) and stops[-1] <= len(document.tokens), name
        assert {question.task for question in document.questions} == set(subject.tasks), name
        for question in document.questions:
            assert len(question.prompt) >= 1 and len(question.answer) >= 1
            assert question.age is None or 0 <= question.age <= question.at
            assert question.scored is None or len(question.scored) == len(question.answer)
        if document.floor is None:
            assert name in ("perplexity", "replay")
        else:
            assert len(document.floor) == len(document.tokens)
            assert (document.floor != document.tokens).any()
            assert document.nothing is None or len(document.nothing) == len(document.tokens)
            assert document.n_prompt < N // 4


def test_what_is_asked_for_stands_in_the_text_and_not_in_the_floor(write, llm: Llama) -> None:
    tasks = (
        "facts",
        "facts-restated",
        "needle",
        "ruler-niah-single-1",
        "ruler-niah-multikey-2",
        "chat",
        "state-updates",
    )
    for subject in write(tasks):
        document = subject.document
        assert document.floor is not None
        for question in document.questions:
            assert question.age is not None
            end = question.at - question.age
            place = slice(max(0, end - len(question.answer) - 2), end)
            answer = llm.detokenize(question.answer)
            assert answer in llm.detokenize(document.tokens[place]), (subject.family.name, answer)
            assert answer not in llm.detokenize(document.floor[place]), (subject.family.name, answer)
            if document.nothing is not None:
                assert answer not in llm.detokenize(document.nothing[place]), (subject.family.name, answer)


def test_ages_go_from_a_tenth_of_a_small_budget_to_nearly_the_whole_text(write) -> None:
    ages = [question.age for question in write(("facts",), 2)[1].document.questions]
    assert min(ages) < 48 and max(ages) > 0.9 * N


def test_the_same_seed_gives_the_same_documents(write) -> None:
    first, second, other = write(), write(), write(seed=1)
    same = [np.array_equal(a.document.tokens, b.document.tokens) for a, b in zip(first, second, strict=True)]
    assert all(same)
    assert not any(np.array_equal(a.document.tokens, b.document.tokens) for a, b in zip(first, other, strict=True))
    a, b = write(("facts",), documents=2)
    assert not np.array_equal(a.document.tokens[:200], b.document.tokens[:200])


def test_halves_share_no_text(write) -> None:
    source = SourceText.load(None)
    choose, report = source.half("choose"), source.half("report")
    assert choose.text + report.text == source.text
    for tasks in (("perplexity",), ("facts",)):
        a, b = (write(tasks, half=half)[0].document.tokens for half in ("choose", "report"))
        assert not np.array_equal(a, b)


def test_tasks_that_share_documents_are_read_together(write) -> None:
    both = write(("facts", "facts-later"))
    assert len(both) == 1 and len({question.at for question in both[0].document.questions}) == 2
    assert {question.task for question in write(("facts-later",))[0].document.questions} == {"facts-later"}
    assert [family.name for family, _ in families_of(("replay", "copy"))] == ["copy", "replay"]


def test_what_does_not_fit_is_refused(write, tmp_path: Path) -> None:
    subjects = write(("copy", "perplexity"))
    with pytest.raises(
        LabError, match=r"'perplexity' reads 2048 tokens, and the model was trained for 1500; lower --tokens"
    ):
        check_fits(subjects, 1500)
    with pytest.raises(
        LabError, match=r"budget 64 of the task 'copy' is below the least one of 69.*ratio 16.*raise --tokens"
    ):
        jobs_of(subjects, EvalSettings(tasks=("copy", "perplexity"), tokens=N, ratios=(16,)))
    with pytest.raises(LabError, match=r"raise --budgets"):
        jobs_of(subjects, EvalSettings(tasks=("copy", "perplexity"), tokens=N, budgets=(68,)))
    chat = write(("chat",))
    with pytest.raises(
        LabError, match=r"'published' protects the prompt of the task 'chat': its \d+ tokens.*leave the rule out"
    ):
        jobs_of(chat, EvalSettings(rules=("published",), tasks=("chat",), tokens=N, budgets=(72,)))
    with pytest.raises(LabError, match="unknown; there are facts, facts-later"):
        families_of(("fact",))
    with pytest.raises(LabError, match="fewer than 200 sentences"):
        short = tmp_path / "short.txt"
        short.write_text("Too short. " * 10)
        SourceText.load(short)
    with pytest.raises(LabError, match="cannot be read"):
        SourceText.load(tmp_path / "missing.txt")
    damaged = tmp_path / "damaged.txt"
    damaged.write_bytes(b"\xff\xfe")
    with pytest.raises(LabError, match="not UTF-8"):
        SourceText.load(damaged)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"half": "third"}, "'choose' or 'report'"),
        ({"tokens": 100}, "use at least 512"),
        ({"ratios": (0,)}, "a ratio is 0"),
        ({"documents": 0}, "documents is 0"),
        ({"ratios": ()}, "no budgets and no ratios"),
        ({"tasks": ()}, "no task is named"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        EvalSettings(**values)


def test_the_grid_has_every_cell_once_and_the_full_cache_first(write) -> None:
    settings = EvalSettings(
        rules=("value_norm", "recent+pinned"), tasks=("facts", "copy", "perplexity"), tokens=N, ratios=(2, 4)
    )
    jobs = jobs_of(write(("facts", "copy", "perplexity")), settings)
    keys = [job.key for job in jobs]
    assert len(set(keys)) == len(keys)
    assert [key.rule for key in keys[:3]] == ["full"] * 3
    assert {key.family for key in keys if key.rule == FLOOR} == {"facts", "copy"}
    assert {key.family for key in keys if key.rule == NOTHING} == {"facts"}
    # perplexity's floor is the rule recent, and there is no prompt to pin in a copy
    assert {key.family for key in keys if key.rule == "recent"} == {"facts", "copy", "perplexity"}
    assert {key.family for key in keys if key.rule == "recent+pinned"} == {"facts"}
    assert {key.budget for key in keys if key.family == "perplexity"} == {0, 1024, 512}
    assert QUICK.documents == 1
