"""Plots of results: quality against budget, and against age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pytriattn.lab.report import UNBUDGETED, levels_of, rules_of
from pytriattn.lab.results import FLOOR, CellKey, EvalResults
from pytriattn.lab.scoring import FULL, LEAST_GAIN, mean_over_tasks, score_tasks
from pytriattn.plotting.figures import empty_figure
from pytriattn.plotting.kept import PlotError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_quality", "retained_by_age"]

AGE_EDGES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 1e9)
"""In budgets."""


def retained_by_age(results: EvalResults, rule: str) -> list[tuple[float, float]]:
    """Return (age in budgets, R) over all questions that ask for one place, in classes of age, over all budgets
    together.
    """
    sums: dict[int, list[float]] = {}
    for key, cell in results.cells.items():
        full = results.cells.get(CellKey(key.family, key.document, FULL, 0))
        floor = results.cells.get(CellKey(key.family, key.document, FLOOR, 0))
        if key.rule != rule or not key.budget or full is None or floor is None:
            continue
        for mine, best, worst in zip(cell.answers, full.answers, floor.answers, strict=False):
            if mine.age is None or mine.group in ("prompt", "system") or best.logprob - worst.logprob <= LEAST_GAIN:
                continue
            age = mine.age / key.budget
            row = sums.setdefault(int(np.searchsorted(AGE_EDGES, age, side="right")) - 1, [0.0, 0.0, 0.0, 0.0])
            row[0] += mine.logprob - worst.logprob
            row[1] += best.logprob - worst.logprob
            row[2] += age
            row[3] += 1
    return [(sums[i][2] / sums[i][3], sums[i][0] / sums[i][1]) for i in sorted(sums)]


def plot_quality(results: EvalResults) -> Figure:
    """Return a figure: the mean of R over tasks against ratio or budget, and R against the age of what is asked for.

    Raises:
        PlotError: there are no results under a budget.
        ImportError: matplotlib is missing.
    """
    levels = levels_of(results)
    if not levels:
        raise PlotError("there are no results under a budget to draw; run with --ratios or --budgets")
    figure = empty_figure(11, 5.5)
    left, right = figure.subplots(1, 2)
    _draw_levels(left, results, levels)
    _draw_ages(right, results)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(f"{results.made_with['model']}, half: {results.made_with['half']}")
    return figure


def _style(number: int) -> dict[str, str]:
    return {"marker": "os^vD*"[number % 6], "linestyle": ("-", "--", ":")[number // 6 % 3]}


def _draw_levels(axes: Axes, results: EvalResults, levels: list[tuple[str, int]]) -> None:
    for number, rule in enumerate(rule for rule in rules_of(results) if rule not in UNBUDGETED):
        points = []
        for level in levels:
            estimate = mean_over_tasks(score_tasks(results, rule, level))
            if estimate is not None:
                points.append((level[1], estimate))
        x = [value for value, _ in points]
        axes.plot(x, [e.value for _, e in points], label=rule, **_style(number))  # type: ignore[arg-type]
        bounded = [(value, e) for value, e in points if e.low is not None and e.high is not None]
        if len(bounded) > 1:
            lows, highs = [e.low for _, e in bounded], [e.high for _, e in bounded]
            axes.fill_between([value for value, _ in bounded], lows, highs, alpha=0.1)  # type: ignore[arg-type]
    _log_ticks(axes, [level[1] for level in levels])
    axes.set_xlabel("length of the text / budget" if levels[0][0] == "ratio" else "budget (keys)")
    axes.set_ylabel("R, mean over tasks")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.axhline(0.0, color="grey", linewidth=0.8)


def _draw_ages(axes: Axes, results: EvalResults) -> None:
    for number, rule in enumerate(rule for rule in rules_of(results) if rule not in UNBUDGETED):
        points = retained_by_age(results, rule)
        axes.plot([age for age, _ in points], [r for _, r in points], **_style(number))  # type: ignore[arg-type]
    _log_ticks(axes, AGE_EDGES[1:-1])
    axes.set_xlabel("age of what is asked for (budgets)")
    axes.set_ylabel("R")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.axhline(0.0, color="grey", linewidth=0.8)


def _log_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
