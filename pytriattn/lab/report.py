"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pytriattn.lab.results import FLOOR, NOTHING, EvalResults
from pytriattn.lab.scoring import (
    FULL,
    Estimate,
    TaskScore,
    difference,
    mean_over_tasks,
    own_metrics,
    score_groups,
    score_tasks,
)
from pytriattn.lab.tasks import TASKS

__all__ = ["format_estimate", "levels_of", "rules_of", "tables"]

COMPARED_WITH = "fitted"
UNBUDGETED = (FULL, NOTHING)
NO_EVICTION = "*"


def rules_of(results: EvalResults) -> list[str]:
    """Return the rules that there are cells of, in the order of their first cell."""
    return [rule for rule in dict.fromkeys(key.rule for key in results.cells) if rule != FLOOR]


def levels_of(results: EvalResults) -> list[tuple[str, int]]:
    """Return the ratios that results were measured at, or the budgets if these are fewer."""
    cells = [(key.budget, cell.length) for key, cell in results.cells.items() if key.budget]
    budgets = {budget for budget, _ in cells}
    # the ratio that was asked for, which has been rounded down to a budget
    ratios = {length // budget for budget, length in cells}
    are_ratios = all(length // (length // budget) == budget for budget, length in cells)
    kind, values = ("ratio", ratios) if are_ratios and len(ratios) <= len(budgets) else ("budget", budgets)
    return [(kind, value) for value in sorted(values)]


def format_estimate(estimate: Estimate | None, sign: str = "") -> str:
    """Return a figure and its interval; ``-`` if there is none."""
    if estimate is None:
        return "-"
    text = f"{estimate.value:{sign}.2f}"
    return text if estimate.low is None else f"{text} [{estimate.low:{sign}.2f} {estimate.high:{sign}.2f}]"


def tables(results: EvalResults, levels: Sequence[tuple[str, int]] | None = None) -> RenderableType:
    """Return tables of retained quality and of the tasks' own figures, one of each for every ratio or budget."""
    made = results.made_with
    parts: list[RenderableType] = [
        Text(
            f"{made['model']}   half: {made['half']}   seed {made['seed']}   {made['tokens']} tokens a document\n"
            "R: 1 as good as the full cache, 0 as if the text had said something else [95 % over documents]; "
            f"{NO_EVICTION} nothing was evicted; - the full cache does not know the answers either"
        )
    ]
    for level in levels or levels_of(results):
        scores = {rule: score_tasks(results, rule, level) for rule in rules_of(results)}
        scores = {rule: found for rule, found in scores.items() if found}
        if scores:
            parts += [_retained(level, scores), *_by_group(results, level, list(scores)), _own(level, scores)]
    return Group(*parts)


def _tasks_in(scores: dict[str, dict[str, TaskScore]]) -> list[str]:
    there = {task for found in scores.values() for task in found}
    return [task for task in TASKS if task in there]


def _retained(level: tuple[str, int], scores: dict[str, dict[str, TaskScore]]) -> Table:
    table = Table(title=f"Retained quality R, {level[0]} {level[1]}", title_justify="left")
    table.add_column("rule", no_wrap=True)
    tasks = _tasks_in(scores)
    for name in ("mean", f"- {COMPARED_WITH}", *tasks):
        table.add_column(name, justify="right")
    n_able = max(_n_able(found) for found in scores.values())
    order = sorted(scores, key=lambda rule: -(_value(mean_over_tasks(scores[rule]))))
    for rule in order:
        found = scores[rule]
        other = scores.get(COMPARED_WITH)
        compared = difference(found, other) if other and rule not in (*UNBUDGETED, COMPARED_WITH) else None
        cells = [_retained_cell(rule, found.get(task)) for task in tasks]
        table.add_row(rule, _mean_cell(found, n_able), format_estimate(compared, sign="+"), *cells)
    counts = [max((found[task].n_questions for found in scores.values() if task in found), default=0) for task in tasks]
    documents = [max(len(found[task].gains) for found in scores.values() if task in found) for task in tasks]
    table.add_section()
    table.add_row("questions/documents", "", "", *(f"{n}/{d}" for n, d in zip(counts, documents, strict=True)))
    return table


def _n_able(found: dict[str, TaskScore]) -> int:
    return sum(score.retained is not None for score in found.values())


def _mean_cell(found: dict[str, TaskScore], n_able: int) -> str:
    """Return the mean, and over how many tasks where these are not all: it does not compare with the others then."""
    n = _n_able(found)
    return format_estimate(mean_over_tasks(found)) + ("" if n == n_able else f" of {n}")


def _value(estimate: Estimate | None) -> float:
    return -1e9 if estimate is None else estimate.value


def _retained_cell(rule: str, score: TaskScore | None) -> str:
    if score is None:
        return ""
    mark = NO_EVICTION if rule not in UNBUDGETED and score.n_evictions == 0 else ""
    return format_estimate(score.estimate()) + mark


def _by_group(results: EvalResults, level: tuple[str, int], rules: list[str]) -> list[Table]:
    """Return a table of R by depth and place, if there are questions that have one."""
    found = {rule: score_groups(results, rule, level) for rule in rules}
    there = {name for groups in found.values() for name in groups}
    names = sorted(there, key=lambda name: (TASKS.index(name[0]), _place(name[1])))
    if not names:
        return []
    table = Table(title=f"R by place, {level[0]} {level[1]}", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for task, group in names:
        table.add_column(f"{task}\n{group}", justify="right")
    for rule, groups in found.items():
        table.add_row(rule, *(f"{groups[name]:.2f}" if name in groups else "-" for name in names))
    return [table]


def _place(group: str) -> tuple[int, str]:
    """Return what orders groups: turns of a chat by time, depths by number."""
    turns = ("prompt", "system", "early", "middle", "late")
    digits = "".join(character for character in group if character.isdigit())
    return (turns.index(group) if group in turns else int(digits or 0), group)


def _own(level: tuple[str, int], scores: dict[str, dict[str, TaskScore]]) -> Table:
    table = Table(title=f"The tasks' own figures, {level[0]} {level[1]}", title_justify="left")
    table.add_column("rule", no_wrap=True)
    figures = {rule: {task: own_metrics(score) for task, score in found.items()} for rule, found in scores.items()}
    columns = [
        (task, name)
        for task in _tasks_in(scores)
        for name in dict.fromkeys(name for found in figures.values() for name in found.get(task, {}))
    ]
    for task, name in columns:
        table.add_column(f"{task}\n{name}", justify="right")
    for rule, found in figures.items():
        cells = [found.get(task, {}).get(name) for task, name in columns]
        table.add_row(rule, *("" if value is None else _figure(value) for value in cells))
    return table


def _figure(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
