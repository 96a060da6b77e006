#!/usr/bin/env python3
"""Write the page docs/quality-table.md from results files of pytriattn-eval: what they say in short, and a table for
each file and ratio.

python tools/quality_pages.py docs/quality-results/*.json > docs/quality-table.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytriattn.lab.report import format_estimate, levels_of, rules_of
from pytriattn.lab.results import NOTHING, EvalResults
from pytriattn.lab.scoring import FULL, Estimate, difference, mean_over_tasks, own_metrics, score_tasks
from pytriattn.lab.tasks import TASKS
from quality_summary import DEFAULT, Scores, against_the_best, ahead_of_each, level_of, worth_of_parts

LEAST_TASKS = 6
"""Tasks of the default that a ratio needs to be in the short tables."""
SHORT_TABLES = (
    (
        "R of the default, in brackets that of the best other rule; bold where the default is not behind:",
        against_the_best,
    ),
    ("How far the default is ahead of a rule on the mean, and where it is behind by more than 0.03:", ahead_of_each),
    ("What the default loses on the mean without a part, and in tasks by more than 0.03:", worth_of_parts),
)

HEAD = """# The quality table

Every rule and task of the [quality lab](quality.md), written by `tools/quality_pages.py` from the results files that
the commands make. R: 1 as good as the full cache, 0 as if the text had said something else, with 95 % intervals over
documents; `-`: the full cache does not know the answers either; empty: not run. In the mean a task counts for at least
−1. "Ahead" is by how much the default (`fitted`) is ahead of a rule in the mean over the tasks that both have.
"""


def cell(estimate: Estimate | None, sign: str = "") -> str:
    """Return a figure and its interval, as a cell of a table."""
    return format_estimate(estimate, sign).replace(" [", "<br>[")


def best_of(scores: Scores, task: str) -> str | None:
    """Return the rule with the highest R in a task, among those that evict."""
    found = {
        rule: score.retained
        for rule, tasks in scores.items()
        if rule not in (FULL, NOTHING) and (score := tasks.get(task)) is not None and score.retained is not None
    }
    return max(found, key=lambda rule: found[rule] or 0.0) if found else None


def table(scores: Scores) -> list[str]:
    """Return the lines of a table: a row for each rule, a column for each task."""
    tasks = [task for task in TASKS if any(task in found for found in scores.values())]
    best = {task: best_of(scores, task) for task in tasks}
    means = {rule: mean_over_tasks(found) for rule, found in scores.items()}
    lines = [f"| rule | mean | ahead | {' | '.join(f'`{task}`' for task in tasks)} |", "|---" * (3 + len(tasks)) + "|"]
    for rule in sorted(scores, key=lambda rule: -(means[rule].value if means[rule] else -1e9)):  # type: ignore[union-attr]
        compared = rule not in (FULL, NOTHING, DEFAULT) and DEFAULT in scores
        ahead = cell(difference(scores[DEFAULT], scores[rule]), "+") if compared else ""
        row = []
        for task in tasks:
            score = scores[rule].get(task)
            text = "" if score is None else cell(score.estimate())
            row.append(f"**{text}**" if rule == best[task] else text)
        n_missing = sum(task not in scores[rule] for task in tasks)
        mean = cell(means[rule]) + (f"<br>of {len(tasks) - n_missing}" if n_missing else "")
        lines.append(f"| `{rule}` | {mean} | {ahead} | {' | '.join(row)} |")
    return lines


def own_figures(scores: Scores) -> list[str]:
    """Return the lines of a table of the tasks' own figures."""
    figures = {rule: {task: own_metrics(score) for task, score in found.items()} for rule, found in scores.items()}
    columns = [
        (task, name)
        for task in TASKS
        for name in dict.fromkeys(name for found in figures.values() for name in found.get(task, {}))
    ]
    lines = [
        f"| rule | {' | '.join(f'`{task}` {name}' for task, name in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for rule, found in figures.items():
        values = [found.get(task, {}).get(name) for task, name in columns]
        lines.append(f"| `{rule}` | {' | '.join('' if value is None else f'{value:.3g}' for value in values)} |")
    return lines


def in_short(of_model: list[EvalResults]) -> list[str]:
    """Return the lines of a model's short tables, over its files' ratios at which most tasks were run."""
    found = [level_of(results, value) for results in of_model for kind, value in levels_of(results) if kind == "ratio"]
    levels = [level for level in found if len(level.scores.get(DEFAULT, ())) >= LEAST_TASKS]
    levels.sort(key=lambda level: level.ratio)
    lines = []
    for title, table_of in SHORT_TABLES:
        rows = table_of(levels)
        if len(rows) > 2:
            lines += [title, "", *rows, ""]
    return lines


def page(files: list[Path]) -> str:
    """Return the whole page."""
    parts = [HEAD]
    all_results = {file.stem: EvalResults.load(file) for file in files}
    for model in dict.fromkeys(results.made_with["model"] for results in all_results.values()):
        of_model = [results for results in all_results.values() if results.made_with["model"] == model]
        parts += [f"## {model} in short\n", "\n".join(in_short(of_model))]
    for name, results in all_results.items():
        made = results.made_with
        parts.append(f"## {name}\n")
        n_documents = 1 + max(key.document for key in results.cells)
        parts.append(
            f"Model `{made['model']}`, {made['tokens']} tokens a document, up to {n_documents} documents of each kind, "
            f"half `{made['half']}`, seed {made['seed']}, text: {made['text']}, statistics: {made['statistics']}.\n"
        )
        for kind, value in levels_of(results):
            scores = {rule: score_tasks(results, rule, (kind, value)) for rule in rules_of(results)}
            scores = {rule: found for rule, found in scores.items() if found}
            parts.append(f"### {name}, {kind} {value}\n")
            parts += [
                "\n".join(table(scores)) + "\n",
                "The tasks' own figures:\n",
                "\n".join(own_figures(scores)) + "\n",
            ]
    return "\n".join(parts)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a results file")
    print(page(parser.parse_args().files), end="")


if __name__ == "__main__":
    main()
