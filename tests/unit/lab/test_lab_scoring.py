"""Retained quality and its intervals, on results made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pytriattn import EvalResults
from pytriattn.lab.plots import plot_quality, retained_by_age
from pytriattn.lab.reading import Answered
from pytriattn.lab.report import levels_of, tables
from pytriattn.lab.results import FLOOR, NOTHING, Cell, CellKey
from pytriattn.lab.scoring import difference, mean_over_tasks, own_metrics, score_groups, score_tasks

MADE = {"model": "m.gguf", "half": "report", "seed": 0, "tokens": 1024}
RATIO = ("ratio", 4)


def answered(task: str, logprob: float, age: int | None = None, **more: object) -> Answered:
    return Answered(task, "", age, logprob, 4, logprob > -1, **more)


def results_of(table: dict[str, list[list[float]]], n_evictions: int = 5) -> EvalResults:
    """Return results of the task facts: rule -> for each document the log-probabilities of its answers."""
    results = EvalResults(dict(MADE))
    for rule, documents in table.items():
        for i, logprobs in enumerate(documents):
            answers = [answered("facts", value, 100 * (j + 1)) for j, value in enumerate(logprobs)]
            is_full = rule in ("full", FLOOR)
            key = CellKey("facts", i, rule, 0 if is_full else 256)
            results.cells[key] = Cell(answers, 0 if is_full else n_evictions, 1024, 0.0)
    return results


TABLE = {
    "full": [[-1.0, -1.0], [-2.0, -0.5]],
    FLOOR: [[-9.0, -1.5], [-10.0, -6.5]],
    "recent": [[-9.0, -1.0], [-10.0, -0.5]],
    "mine": [[-5.0, -1.0], [-6.0, -0.5]],
}


def test_retained_quality_is_a_ratio_of_sums_over_what_the_full_cache_knows() -> None:
    results = results_of(TABLE)
    mine = score_tasks(results, "mine", RATIO)["facts"]
    # the second question of the first document counts for nothing: the full cache is better by half a nat only
    assert mine.n_questions == 3
    assert mine.gains.tolist() == [4.0, 10.0] and mine.known.tolist() == [8.0, 14.0]
    assert mine.retained == pytest.approx(14 / 22)
    assert score_tasks(results, "full", RATIO)["facts"].retained == pytest.approx(1.0)
    assert score_tasks(results, "recent", RATIO)["facts"].retained == pytest.approx(6 / 22)
    for i, logprobs in enumerate(([-8.0, -1.0], [-10.0, -5.0])):
        answers = [answered("facts", value) for value in logprobs]
        results.cells[CellKey("facts", i, NOTHING, 0)] = Cell(answers, 0, 1024, 0.0)
    assert score_tasks(results, NOTHING, RATIO)["facts"].retained == pytest.approx(2.5 / 22)
    assert score_tasks(results, "mine", ("budget", 256))["facts"].retained == pytest.approx(14 / 22)
    assert score_tasks(results, "mine", ("ratio", 2)) == {}


def test_intervals_come_from_drawing_documents() -> None:
    estimate = score_tasks(results_of(TABLE), "mine", RATIO)["facts"].estimate()
    assert estimate is not None
    # with two documents there are three sets: both first, one of each, both second
    assert estimate.low == pytest.approx(0.5) and estimate.high == pytest.approx(10 / 14)
    one = {rule: documents[:1] for rule, documents in TABLE.items()}
    alone = score_tasks(results_of(one), "mine", RATIO)["facts"].estimate()
    assert alone is not None and alone.low is None


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    table: dict[str, list[list[float]]] = {"full": [], FLOOR: [], "a": [], "b": []}
    for _ in range(12):
        quality = rng.random()
        for rule, share in (("full", 1.0), (FLOOR, 0.0), ("a", quality), ("b", quality - 0.1)):
            table[rule].append([-10.0 + 9.0 * share])
    results = results_of(table)
    scores = {rule: score_tasks(results, rule, RATIO) for rule in ("a", "b")}
    found = difference(scores["a"], scores["b"])
    assert found is not None and found.value == pytest.approx(0.1)
    mean = mean_over_tasks(scores["a"])
    assert mean is not None and mean.low is not None and mean.high is not None
    # each rule alone is uncertain, their difference is not
    assert mean.high - mean.low > 0.1
    assert found.low is None or found.low == pytest.approx(0.1)


def test_one_task_alone_does_not_decide_a_mean() -> None:
    table = {"full": [[-1.0]], FLOOR: [[-3.0]], "bad": [[-43.0]], "mine": [[-2.0]]}
    scores = {rule: score_tasks(results_of(table), rule, RATIO) for rule in ("bad", "mine")}
    assert scores["bad"]["facts"].retained == pytest.approx(-20.0)
    mean, found = mean_over_tasks(scores["bad"]), difference(scores["mine"], scores["bad"])
    assert mean is not None and mean.value == -1.0
    assert found is not None and found.value == pytest.approx(1.5)


def test_where_the_full_cache_knows_nothing_there_is_no_figure() -> None:
    table = {"full": [[-5.0]], FLOOR: [[-5.0]], "mine": [[-4.0]]}
    scores = score_tasks(results_of(table), "mine", RATIO)
    assert scores["facts"].retained is None and scores["facts"].estimate() is None
    assert mean_over_tasks(scores) is None and difference(scores, scores) is None


def test_the_floor_of_running_text_is_the_newest_keys() -> None:
    results = EvalResults(dict(MADE))
    for rule, budget, logprob in (("full", 0, -100.0), ("recent", 256, -200.0), ("mine", 256, -150.0)):
        long = Answered("perplexity", "", None, logprob, 500, False)
        results.cells[CellKey("perplexity", 0, rule, budget)] = Cell([long], 1, 1024, 0.0)
    assert score_tasks(results, "mine", RATIO)["perplexity"].retained == pytest.approx(0.5)
    assert score_tasks(results, "recent", RATIO)["perplexity"].retained == pytest.approx(0.0)
    assert score_tasks(results, "full", RATIO)["perplexity"].retained == pytest.approx(1.0)
    assert own_metrics(score_tasks(results, "mine", RATIO)["perplexity"]) == {"perplexity": pytest.approx(np.exp(0.3))}


def test_own_figures_are_means_over_questions() -> None:
    results = results_of({"full": [[-0.5, -3.0]], FLOOR: [[-9.0, -9.0]]})
    assert own_metrics(score_tasks(results, "full", RATIO)["facts"]) == {"exact": 0.5}
    key = CellKey("facts", 0, "full", 0)
    compared = [answered("facts", -2.0, found=0.5, top1=0.75, divergence=0.1, first_mismatch=3)] * 2
    results.cells[key] = Cell(compared, 0, 1024, 0.0)
    results.cells[CellKey("facts", 0, FLOOR, 0)] = Cell([answered("facts", -9.0)] * 2, 0, 1024, 0.0)
    figures = own_metrics(score_tasks(results, "full", RATIO)["facts"])
    assert figures == {"exact": 0.0, "found": 0.5, "top1": 0.75, "divergence": 0.1, "first_mismatch": 3.0}


def test_results_are_reported_by_ratio_or_by_budget() -> None:
    def results(*cells: tuple[int, int]) -> EvalResults:
        found = EvalResults(dict(MADE))
        for i, (length, budget) in enumerate(cells):
            found.cells[CellKey("facts", i, "recent", budget)] = Cell([], 1, length, 0.0)
        return found

    assert levels_of(results((2048, 512), (4096, 1024))) == [("ratio", 4)]
    assert levels_of(results((2048, 1024), (2048, 512), (4096, 2048), (4096, 1024))) == [("ratio", 2), ("ratio", 4)]
    assert levels_of(results((2048, 512), (4096, 512))) == [("budget", 512)]
    assert levels_of(results((2048, 700), (4096, 700))) == [("budget", 700)]
    # a ratio of 3 gives a budget of 682
    assert levels_of(results((2048, 682))) == [("ratio", 3)]
    assert levels_of(EvalResults(dict(MADE))) == []


def test_groups_have_figures_of_their_own() -> None:
    results = EvalResults(dict(MADE))
    for rule, budget, early, late in (("full", 0, -1.0, -1.0), (FLOOR, 0, -9.0, -11.0), ("mine", 256, -9.0, -1.0)):
        answers = [
            Answered("chat", group, 5, logprob, 4, False) for group, logprob in (("early", early), ("late", late))
        ]
        results.cells[CellKey("chat", 0, rule, budget)] = Cell(answers, 1, 1024, 0.0)
    assert score_groups(results, "mine", RATIO) == {("chat", "early"): 0.0, ("chat", "late"): 1.0}


def test_ages_are_counted_in_budgets() -> None:
    points = retained_by_age(results_of(TABLE), "mine")
    # ages 100 and 200 of a budget of 256
    assert [round(age, 3) for age, _ in points] == [round(100 / 256, 3), round(200 / 256, 3)]
    assert points[0][1] == pytest.approx(8 / 16) and points[1][1] == pytest.approx(1.0)


def test_tables_mark_cells_without_evictions_and_plots_have_a_line_for_each_rule() -> None:
    from rich.console import Console

    def text_of(results: EvalResults) -> str:
        console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(tables(results))
        return console.export_text()

    assert levels_of(results_of(TABLE)) == [RATIO]
    assert "0.64 [0.50 0.71] │" in text_of(results_of(TABLE))
    assert "0.64 [0.50 0.71]* │" in text_of(results_of(TABLE, n_evictions=0))
    figure = plot_quality(results_of(TABLE))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["recent", "mine"]
