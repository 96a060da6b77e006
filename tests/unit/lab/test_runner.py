"""A run from end to end: what has been computed is kept, through interruptions too, and what does not fit is
refused.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytriattn import EvalResults, EvalSettings, LabError, run_eval
from pytriattn.cli.eval import main
from pytriattn.lab import runner
from pytriattn.lab.reading import Answered, Reading
from pytriattn.lab.results import Cell, CellKey
from pytriattn.lab.scoring import score_tasks

SETTINGS = EvalSettings(rules=("recent", "random"), tasks=("facts", "copy"), tokens=512, ratios=(4,), documents=1)


def answer_without_reading(rows: list[Any], llm: Any, document: Any, **options: Any) -> Reading:
    rows.append((llm.budget, options))
    return Reading([Answered(q.task, q.group, q.age, -1.0, 1, True) for q in document.questions], 1)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Answer every question without reading; the list has a row for each reading."""
    rows: list[Any] = []
    monkeypatch.setattr(runner, "read_document", partial(answer_without_reading, rows))
    return rows


@pytest.mark.slow
def test_a_small_run(smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, picture = tmp_path / "results.json", tmp_path / "plot.svg"
    arguments = [str(smollm2), "--rules", "recent", "--tasks", "copy", "--tokens", "512", "--documents", "1"]
    assert main([*arguments, "-o", str(output), "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "Retained quality R, ratio 4" in printed and "perplexity" in printed and picture.stat().st_size > 1000
    results = EvalResults.load(output)
    assert set(map(str, results.cells)) == {"copy/0/full/0", "copy/0/floor/0", "copy/0/recent/128"}
    full, floor, recent = (
        results.cells[CellKey("copy", 0, *key)] for key in (("full", 0), ("floor", 0), ("recent", 128))
    )
    assert full.answers[0].logprob > recent.answers[0].logprob > floor.answers[0].logprob - 100
    assert recent.n_evictions == (512 - 128) // 128 and full.n_evictions == 0
    assert results.made_with["model"] == smollm2.name and len(results.made_with["model_sha256"]) == 64


@pytest.mark.slow
def test_what_is_there_is_not_computed_again(smollm2: Path, tmp_path: Path, read: list[Any]) -> None:
    output = tmp_path / "results.json"
    steps: list[tuple[int, int, str]] = []
    first = run_eval(smollm2, SETTINGS, output=output, progress=lambda *step: steps.append(step))
    assert len(read) == len(first.cells) == 2 * 4 + 1
    assert steps[-1][0] == steps[-1][1] > 0 and [done for done, *_ in steps] == sorted(done for done, *_ in steps)
    run_eval(smollm2, SETTINGS, output=output)
    assert len(read) == 9
    more = EvalSettings(
        rules=("recent", "random", "recent+pinned"), tasks=("facts",), tokens=512, ratios=(4,), documents=2
    )
    run_eval(smollm2, more, output=output)
    assert len(read) == 9 + 1 + 6
    before = EvalResults.load(output).cells
    again = run_eval(smollm2, SETTINGS, output=output, again=("random",))
    assert len(read) == 16 + 2
    assert set(again.cells) == set(before)  # what this run does not ask for stays, such as the second document
    with pytest.raises(LabError, match="'value_norm' is to be computed again, but is none of the rules"):
        run_eval(smollm2, SETTINGS, output=output, again=("value_norm",))
    assert EvalResults.load(output).cells == again.cells


@pytest.mark.slow
def test_tasks_of_one_document_may_come_in_several_runs(smollm2: Path, tmp_path: Path, read: list[Any]) -> None:
    def run(*tasks: str, again: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        """Return how many texts were read, and the tasks that the cell of `recent` then has."""
        settings = EvalSettings(rules=("recent",), tasks=tasks, tokens=512, ratios=(4,), documents=1)
        before = len(read)
        results = run_eval(smollm2, settings, output=tmp_path / "results.json", again=again)
        answers = results.cells[CellKey("facts", 0, "recent", 128)].answers
        return len(read) - before, list(dict.fromkeys(answer.task for answer in answers))

    assert run("facts") == (4, ["facts"])  # the full cache, the floor, nothing and the rule
    assert run("facts-later") == (4, ["facts", "facts-later"])
    assert run("facts", "facts-later") == run("facts") == (0, ["facts", "facts-later"])
    assert run("facts", again=("recent",)) == (1, ["facts-later", "facts"])


def test_an_interruption_loses_nothing(
    smollm2: Path, tmp_path: Path, read: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results.json"
    answer = partial(answer_without_reading, read)
    left = 3

    def interrupted(*arguments: Any, **options: Any) -> Reading:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return answer(*arguments, **options)

    monkeypatch.setattr(runner, "read_document", interrupted)
    arguments = [str(smollm2), "--rules", "recent", "--tasks", "facts,copy", "--tokens", "512", "-o", str(output)]
    assert main(arguments) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert len(EvalResults.load(output).cells) == 3
    monkeypatch.setattr(runner, "read_document", answer)
    assert main(arguments) == 0
    assert len(read) == len(EvalResults.load(output).cells) == 14


def test_results_of_another_run_are_refused(smollm2: Path, gemma3: Path, tmp_path: Path, read: list[Any]) -> None:
    output = tmp_path / "results.json"
    run_eval(smollm2, SETTINGS, output=output)
    with pytest.raises(LabError, match=r"model was 'SmolLM2.*' and is 'gemma.*'.*another file with -o"):
        run_eval(gemma3, SETTINGS, output=output)
    with pytest.raises(LabError, match=r"seed was 0 and is 1"):
        run_eval(smollm2, EvalSettings(tokens=512, tasks=("copy",), seed=1), output=output)
    data = json.loads(output.read_text())
    data["made_with"]["pytriattn"] = "0.0.1"
    output.write_text(json.dumps(data))
    with pytest.raises(LabError, match=r"pytriattn was '0.0.1' and is"):
        run_eval(smollm2, SETTINGS, output=output)


def test_a_file_has_a_line_for_each_cell_and_gives_the_same_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    answers = [
        Answered("facts", "", None, -1.25, 2, True),
        Answered("replay", "greedy", 7, -3.5, 9, False, top1=0.5, divergence=0.25, first_mismatch=3),
    ]
    results = EvalResults({"model": "m.gguf"}, generated={"replay/0": [1, 2]}, path=path)
    for name in ("recent", "random"):
        results.add(CellKey("facts", 0, name, 128), Cell(answers, 2, 512, 0.5))
    again = EvalResults.load(path)
    assert (again.cells, again.generated, again.made_with) == (results.cells, results.generated, results.made_with)
    lines = path.read_text().splitlines()
    assert [line.split('"')[1] for line in lines[2:-1]] == ["facts/0/random/128", "facts/0/recent/128"]


@pytest.mark.slow
def test_the_oracle_knows_the_questions_of_each_document(smollm2: Path, tmp_path: Path) -> None:
    rules = ("oracle", "no_standing", "recent")
    settings = EvalSettings(rules=rules, tasks=("facts",), tokens=512, ratios=(4,), documents=2)
    results = run_eval(smollm2, settings, output=tmp_path / "results.json", n_threads=1)
    found = {rule: score_tasks(results, rule, ("ratio", 4))["facts"].retained for rule in rules}
    assert found["oracle"] > found["no_standing"] + 0.1 and found["oracle"] > found["recent"]  # type: ignore[operator]


@pytest.mark.slow
def test_rules_without_a_part_keep_other_keys(smollm2: Path, tmp_path: Path) -> None:
    rules = ("fitted", "no_standing", "no_fit", "no_received", "no_value", "no_retrieval")
    settings = EvalSettings(rules=rules, tasks=("facts",), tokens=512, ratios=(4,), documents=1)
    results = run_eval(smollm2, settings, output=tmp_path / "results.json", n_threads=1)
    found = {rule: score_tasks(results, rule, ("ratio", 4))["facts"].retained for rule in rules}
    assert len(set(found.values())) == len(rules)
    assert found["fitted"] > found["no_standing"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged or no results file"),
        ("[]", "is no results file"),
        ('{"format": "pytriattn-eval", "version": 99}', "have the version 99, this program reads 1"),
        ('{"format": "pytriattn-eval", "version": 1, "made_with": {}, "cells": {"a": {}}}', "are damaged"),
    ],
)
def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(LabError, match=message):
        EvalResults.load(path)
    with pytest.raises(LabError, match="cannot be read"):
        EvalResults.load(tmp_path / "missing.json")


def test_bad_input_is_one_line(smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(tmp_path / "none.gguf")], "does not exist"),
        ([str(smollm2), "--rules", "best"], "the rule 'best' is unknown"),
        ([str(smollm2), "--tasks", "facts,riddles"], "the task 'riddles' is unknown"),
        ([str(smollm2), "--tasks", "copy", "--tokens", "512", "--ratios", "8"], "below the least one of 69"),
        ([str(smollm2), "--tasks", "copy", "--tokens", "9000"], "the model was trained for"),
        ([str(smollm2), "--plot", "picture.txt"], "picture.txt"),
    ):
        assert main([*arguments, "-o", str(tmp_path / "r.json")]) == 2
        errors = capsys.readouterr().err
        assert message in errors and errors.count("\n") == 1, errors


def test_rules_are_opened_as_they_ask(smollm2: Path, read: list[Any]) -> None:
    settings = EvalSettings(rules=("recent+pinned",), tasks=("facts",), tokens=512, ratios=(4,), documents=1)
    run_eval(smollm2, settings)
    assert [row[0] for row in read] == [None, None, None, 128]
    assert [row[1]["is_pinned"] for row in read] == [False, False, False, True]
    assert [row[1]["tokens"] is None for row in read] == [True, False, False, True]
