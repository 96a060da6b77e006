"""Retained quality: what a rule keeps of the difference between the full cache and a floor, with intervals over
documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn.lab.reading import Answered
from pytriattn.lab.results import FLOOR, Cell, CellKey, EvalResults

__all__ = [
    "LEAST_GAIN",
    "Estimate",
    "TaskScore",
    "difference",
    "mean_over_tasks",
    "own_metrics",
    "score_groups",
    "score_tasks",
]

LEAST_GAIN = 1.0
"""Nats by which the full cache must know an answer better than the floor for its question to count."""
LEAST_IN_MEAN = -1.0
"""What a task counts for at least in a mean over tasks. Where the floor is nearly as good as the full cache, as on some
running text, R falls without bound, and one task would decide.
"""
N_RESAMPLES = 2000
FULL = "full"
FLOOR_RULE = "recent"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; the interval is None for fewer than two documents."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class TaskScore:
    """What a rule retains in a task.

    Attributes:
        gains: for each document, the sum over questions of rule - floor in nats: [n_documents].
        known: the same for the full cache.
        n_questions: how many questions count.
        n_evictions: the fewest evictions that took place in a document.
        answers: the answers of all documents, one list for each.
    """

    gains: Floats
    known: Floats
    n_questions: int
    n_evictions: int
    answers: list[list[Answered]]

    @property
    def retained(self) -> float | None:
        """R, as a ratio of sums: 1 as good as the full cache, 0 as bad as the floor; None: the full cache knows
        nothing either.
        """
        return float(self.gains.sum() / self.known.sum()) if self.known.sum() > 0 else None

    def resampled(self, picks: npt.NDArray[np.intp]) -> Floats:
        """Return R for each set of documents, [n_sets]; NaN where the full cache knows nothing."""
        known = self.known[picks].sum(axis=1)
        ratios = np.divide(self.gains[picks].sum(axis=1), known, out=np.full(len(picks), np.nan), where=known > 0)
        return np.asarray(ratios, dtype=np.float64)

    def estimate(self, seed: int = 0) -> Estimate | None:
        """Return R with its interval."""
        if self.retained is None:
            return None
        return _with_interval(self.retained, self.resampled(draw_documents(len(self.gains), seed)))


def draw_documents(n: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """Return documents drawn with replacement, [n_resamples, n]: the same for all rules, so that differences are
    paired.
    """
    return np.random.default_rng([seed, n]).integers(n, size=(N_RESAMPLES, n))


def _with_interval(value: float, resampled: Floats) -> Estimate:
    finite = resampled[np.isfinite(resampled)]
    if finite.size == 0 or np.ptp(finite) == 0.0:
        return Estimate(value)
    low, high = np.quantile(finite, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _compared(
    results: EvalResults, rule: str, level: tuple[str, int]
) -> Iterator[tuple[str, Cell, list[tuple[Answered, Answered, Answered]]]]:
    """Yield task, cell, and for each question how the rule, the full cache and the floor answered it."""
    for key, cell in sorted(results.cells.items(), key=lambda item: item[0]):
        if key.rule != rule or (key.budget and not _is_at(key, cell, level)):
            continue
        full = results.cells.get(CellKey(key.family, key.document, FULL, 0))
        floor = results.cells.get(CellKey(key.family, key.document, FLOOR, 0))
        if floor is None:
            budget = key.budget or _budget_at(cell, level)
            floor = results.cells.get(CellKey(key.family, key.document, FLOOR_RULE, budget))
        if full is None or floor is None:
            continue
        for task in dict.fromkeys(answer.task for answer in cell.answers):
            mine, best, worst = (_answers_of(c, task) for c in (cell, full, floor))
            if len(mine) == len(best) == len(worst):
                yield task, cell, list(zip(mine, best, worst, strict=True))


def _answers_of(cell: Cell, task: str) -> list[Answered]:
    return [answer for answer in cell.answers if answer.task == task]


def _sums(answers: Iterable[tuple[Answered, Answered, Answered]]) -> tuple[float, float, int]:
    """Return the sums of rule - floor and full - floor over the questions that count, and how many these are."""
    pairs = [(mine.logprob - worst.logprob, best.logprob - worst.logprob) for mine, best, worst in answers]
    counting = [(gain, known) for gain, known in pairs if known > LEAST_GAIN]
    return sum(gain for gain, _ in counting), sum(known for _, known in counting), len(counting)


def score_tasks(results: EvalResults, rule: str, level: tuple[str, int]) -> dict[str, TaskScore]:
    """Return what a rule retains in each task, over the documents that have been read under it.

    Args:
        results: the results of a run.
        rule: the name of the rule.
        level: ``("ratio", 4)`` or ``("budget", 512)``.
    """
    found: dict[str, list[tuple[float, float, int, int, list[Answered]]]] = {}
    for task, cell, answers in _compared(results, rule, level):
        row = (*_sums(answers), cell.n_evictions, [mine for mine, *_ in answers])
        found.setdefault(task, []).append(row)
    return {
        task: TaskScore(
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows]),
            sum(row[2] for row in rows),
            min(row[3] for row in rows),
            [row[4] for row in rows],
        )
        for task, rows in found.items()
    }


def score_groups(results: EvalResults, rule: str, level: tuple[str, int]) -> dict[tuple[str, str], float]:
    """Return R for each (task, group) of questions that have a group, such as a depth or a place in a chat."""
    found: dict[tuple[str, str], list[tuple[Answered, Answered, Answered]]] = {}
    for task, _, answers in _compared(results, rule, level):
        for row in answers:
            if row[0].group:
                found.setdefault((task, row[0].group), []).append(row)
    sums = {name: _sums(answers) for name, answers in found.items()}
    return {name: gain / known for name, (gain, known, n) in sums.items() if n > 0}


def _budget_at(cell: Cell, level: tuple[str, int]) -> int:
    kind, value = level
    return value if kind == "budget" else cell.length // value


def _is_at(key: CellKey, cell: Cell, level: tuple[str, int]) -> bool:
    return key.budget == _budget_at(cell, level)


def mean_over_tasks(scores: dict[str, TaskScore], seed: int = 0) -> Estimate | None:
    """Return the mean of R over the tasks that the full cache can do, each at least `LEAST_IN_MEAN`; its interval by
    drawing documents within each task.
    """
    able = [score for score in scores.values() if score.retained is not None]
    return _with_interval(_mean(able), _mean_resampled(able, seed)) if able else None


def difference(mine: dict[str, TaskScore], other: dict[str, TaskScore], seed: int = 0) -> Estimate | None:
    """Return by how much one rule's mean over tasks is above another's, as `mean_over_tasks`, paired by documents, over
    the tasks that both have.
    """
    common = [
        task
        for task, score in mine.items()
        if score.retained is not None and task in other and len(score.gains) == len(other[task].gains)
    ]
    if not common:
        return None
    first, second = ([scores[task] for task in common] for scores in (mine, other))
    drawn = _mean_resampled(first, seed) - _mean_resampled(second, seed)
    return _with_interval(_mean(first) - _mean(second), drawn)


def _mean(scores: Sequence[TaskScore]) -> float:
    retained = [score.retained for score in scores if score.retained is not None]
    return float(np.mean(np.maximum(retained, LEAST_IN_MEAN)))


def _mean_resampled(scores: Sequence[TaskScore], seed: int) -> Floats:
    # task by task other documents are drawn, but the same ones for every rule
    drawn = [score.resampled(draw_documents(len(score.gains), seed + i)) for i, score in enumerate(scores)]
    return np.asarray(np.mean(np.maximum(drawn, LEAST_IN_MEAN), axis=0))


def own_metrics(score: TaskScore) -> dict[str, float]:
    """Return the task's own figures: means over all questions, whether the full cache knows them or not.

    ``exact``: share of answers that greedy decoding gives. ``found``: share of a list's items in a generated answer.
    ``perplexity``: that of scored tokens, for long answers. ``top1``, ``divergence`` and ``first_mismatch``: as in
    `Answered`.
    """
    answers = [answer for document in score.answers for answer in document]
    figures: dict[str, float] = {}
    if max(answer.n_scored for answer in answers) > 64:
        logprob, n = sum(answer.logprob for answer in answers), sum(answer.n_scored for answer in answers)
        figures["perplexity"] = float(np.exp(-logprob / n))
    else:
        figures["exact"] = float(np.mean([answer.is_exact for answer in answers]))
    for name in ("found", "top1", "divergence", "first_mismatch"):
        values = [value for answer in answers if (value := getattr(answer, name)) is not None]
        if values:
            figures[name] = float(np.mean(values))
    return figures
