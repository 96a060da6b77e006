"""What results files of pytriattn-eval say in short: the default against the best other rule in each task, how far it
is ahead of each rule, and what its parts are worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytriattn.lab.report import format_estimate
from pytriattn.lab.results import EvalResults
from pytriattn.lab.rules import find_rules
from pytriattn.lab.scoring import Estimate, TaskScore, difference, mean_over_tasks, own_metrics, score_tasks
from pytriattn.lab.tasks import TASKS

DEFAULT = "fitted"
_RULES = find_rules(["all"])
BASELINES = tuple(rule.name for rule in _RULES if rule.mode not in (None, DEFAULT))
PARTS = tuple(rule.name for rule in _RULES if "key_score" in rule.settings)
NOTABLE = 0.03
"""A difference of R that counts."""
OWN = (("copy", "perplexity"), ("perplexity", "perplexity"), ("replay", "top1"))
"""Tasks whose own figure says more than R, and its name."""
LARGER_IS_BETTER = {"perplexity": False, "top1": True}
OWN_TITLES = {
    ("copy", "perplexity"): "perplexity of the copy",
    ("perplexity", "perplexity"): "perplexity of running text",
    ("replay", "top1"): "replay, share of equal likeliest tokens",
}

Scores = dict[str, dict[str, TaskScore]]


class Level(NamedTuple):
    """The scores of all rules at one ratio: ``scores[rule][task]``."""

    ratio: int
    scores: Scores


def level_of(results: EvalResults, ratio: int) -> Level:
    """Return what all rules that the summary names scored at a ratio, in the tasks of which they have read as many
    documents as the default.
    """
    rules = (DEFAULT, *BASELINES, *PARTS, "full")
    found = {rule: score_tasks(results, rule, ("ratio", ratio)) for rule in rules}
    n_documents = {task: len(score.gains) for task, score in found[DEFAULT].items()}
    alike = {
        rule: {task: score for task, score in scores.items() if len(score.gains) == n_documents.get(task)}
        for rule, scores in found.items()
    }
    return Level(ratio, {rule: scores for rule, scores in alike.items() if scores})


def against_the_best(levels: Sequence[Level]) -> list[str]:
    """Return the lines of a table of R: in each cell the default's, and that of the best other rule in brackets; bold
    where the default is not behind. Each level has the default.
    """
    lines = _head("R", levels)
    for task in TASKS:
        cells = [_against_in_task(level, task) for level in levels]
        if any(cells):
            lines.append(_row(f"`{task}`", cells))
    for task, name in OWN:
        lines.append(_row(OWN_TITLES[task, name], [_against_in_figure(level, task, name) for level in levels]))
    lines.append(_row("mean", [_text(mean_over_tasks(level.scores[DEFAULT])) for level in levels]))
    return lines


def ahead_of_each(levels: Sequence[Level]) -> list[str]:
    """Return the lines of a table of how far the default is ahead of each rule on the mean over tasks, and of the tasks
    in which the rule is ahead by more than `NOTABLE`. Each level has the default.
    """
    return _compared("ahead of", BASELINES, levels, both=False)


def worth_of_parts(levels: Sequence[Level]) -> list[str]:
    """Return the lines of a table of what leaving each part out costs: on the mean, and in each task by more than
    `NOTABLE`. Each level has the default.
    """
    return _compared("without", PARTS, levels, both=True)


def _compared(first: str, rules: Iterable[str], levels: Sequence[Level], *, both: bool) -> list[str]:
    lines = _head(first, levels)
    for rule in rules:
        cells = [_ahead(level, rule, both=both) for level in levels]
        if any(cells):
            lines.append(_row(f"`{rule}`", cells))
    return lines


def _head(first: str, levels: Sequence[Level]) -> list[str]:
    return [_row(first, [f"{level.ratio} ×" for level in levels]), "|---" * (1 + len(levels)) + "|"]


def _row(first: str, cells: Iterable[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _figure(value: float) -> str:
    return _text(Estimate(value))


def _text(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_estimate(estimate).replace("-0.00", "0.00").replace("-", "−")


def _retained(level: Level, rule: str, task: str) -> float | None:
    score = level.scores.get(rule, {}).get(task)
    return None if score is None else score.retained


def _against_in_task(level: Level, task: str) -> str:
    mine = _retained(level, DEFAULT, task)
    if mine is None:
        return ""
    others = {rule: value for rule in BASELINES if (value := _retained(level, rule, task)) is not None}
    if not others:
        return _figure(mine)
    best = max(others, key=lambda rule: others[rule])
    text = _figure(mine)
    text = f"**{text}**" if mine >= others[best] else text
    return f"{text} (`{best}` {_figure(others[best])})"


def _own_figure(level: Level, rule: str, task: str, name: str) -> float | None:
    score = level.scores.get(rule, {}).get(task)
    return None if score is None else own_metrics(score).get(name)


def _against_in_figure(level: Level, task: str, name: str) -> str:
    mine = _own_figure(level, DEFAULT, task, name)
    if mine is None:
        return ""
    sign = 1 if LARGER_IS_BETTER[name] else -1
    others = {rule: value for rule in BASELINES if (value := _own_figure(level, rule, task, name)) is not None}
    form = "{:.3f}" if LARGER_IS_BETTER[name] else "{:.2f}"
    text = form.format(mine)
    if not others:
        return text
    best = max(others, key=lambda rule: sign * others[rule])
    text = f"**{text}**" if sign * mine >= sign * others[best] else text
    full = _own_figure(level, "full", task, name)
    of_full = f", full {form.format(full)}" if full is not None and not LARGER_IS_BETTER[name] else ""
    return f"{text} (`{best}` {form.format(others[best])}{of_full})"


def _ahead(level: Level, rule: str, *, both: bool) -> str:
    """Return how far the default is ahead of a rule, and where it is behind; with `both`, where it is ahead, too."""
    if rule not in level.scores:
        return ""
    mine, other = level.scores[DEFAULT], level.scores[rule]
    parts = [_text(difference(mine, other))]
    common = [task for task in TASKS if task in mine and task in other]
    n_able = sum(mine[task].retained is not None for task in mine)
    n_common = sum(mine[task].retained is not None for task in common)
    if n_common < n_able:
        parts.append(f"of {n_common} tasks")
    for task in common:
        gain = _gain(level, rule, task)
        if gain is not None and (gain < -NOTABLE or (both and gain > NOTABLE)):
            parts.append(f"`{task}` {'+' if gain > 0 else '−'}{abs(gain):.2f}")
    return "<br>".join(parts)


def _gain(level: Level, rule: str, task: str) -> float | None:
    mine, other = _retained(level, DEFAULT, task), _retained(level, rule, task)
    return None if mine is None or other is None else mine - other
