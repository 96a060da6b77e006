#!/usr/bin/env python3
"""Tables and pictures of the results: ``python -m hybrids.summary RESULTS.jsonl...`` in the folder tools.

    python -m hybrids.summary hybrid.jsonl                                  tables of accuracy, in Markdown
    python -m hybrids.summary hybrid.jsonl attention.jsonl --plot FOLDER    pictures of both models

Accuracy is the share of needles whose two digits are both the likeliest tokens. Intervals are 95 % bootstrap intervals
over texts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TASKS = ("at_end", "later")
N_RESAMPLES = 2000
PLOTTED = ("fitted_asked", "fitted", "per_layer_head", "published", "random_per_head", "random", "recent")


@dataclass(frozen=True)
class Results:
    """Results of one model.

    Attributes:
        model: name of its file.
        rows: one for each cell, as `hybrids.experiment` writes them.
    """

    model: str
    rows: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a results file."""
        first, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return cls(first["model"], rows)

    def arms(self) -> list[str]:
        """Return the names of the arms in the order of the file."""
        return list(dict.fromkeys(row["arm"] for row in self.rows))

    def shares(self, arm: str) -> list[float]:
        """Return the shares at which an arm was measured, descending."""
        return sorted({row["share"] for row in self.rows if row["arm"] == arm}, reverse=True)

    def right(
        self, arm: str, share: float, task: str, *, depth: int | None = None, kind: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Return for each text the share of its needles that is right: [n_texts]; of one depth or kind if given."""
        found = []
        for row in self.rows:
            if row["arm"] == arm and row["share"] == share and kind in (None, row["kind"]):
                answers = [a[2] for a in row["answers"] if a[0] == task and depth in (None, a[1])]
                if answers:
                    found.append(float(np.mean(answers)))
        return np.array(found)


def interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    picks = np.random.default_rng(seed).integers(len(values), size=(N_RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def cell(values: npt.NDArray[np.float64]) -> str:
    """Return a mean with its interval for a table."""
    if not len(values):
        return ""
    low, high = interval(values)
    return f"{values.mean():.2f} [{low:.2f} {high:.2f}]"


def table(results: Results, task: str) -> str:
    """Return a table of accuracy: arms by shares."""
    shares = sorted({share for arm in results.arms() for share in results.shares(arm)}, reverse=True)[1:]
    lines = [
        "| rule | texts | " + " | ".join(f"{share:g} %" for share in shares) + " |",
        "|---" * (len(shares) + 2) + "|",
    ]
    for arm in results.arms():
        if arm == "full":
            values = [results.right(arm, 100.0, task)] * len(shares)
        else:
            values = [results.right(arm, share, task) for share in shares]
        if any(len(v) for v in values):
            cells = [cell(v) for v in values]
            lines.append(f"| `{arm}` | {max(len(v) for v in values)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def depth_table(results: Results, task: str, share: float, arms: Sequence[str]) -> str:
    """Return a table of accuracy at one share: arms by depths."""
    depths = sorted({answer[1] for row in results.rows for answer in row["answers"]})
    lines = ["| rule | " + " | ".join(f"{depth} %" for depth in depths) + " |", "|---" * (len(depths) + 1) + "|"]
    for arm in arms:
        found = [results.right(arm, share, task, depth=depth) for depth in depths]
        if all(len(v) for v in found):
            lines.append(f"| `{arm}` | " + " | ".join(f"{v.mean():.2f}" for v in found) + " |")
    return "\n".join(lines)


def kind_table(results: Results, share: float, arms: Sequence[str]) -> str:
    """Return a table of accuracy at one share: arms by kinds of texts and by when the question comes."""
    kinds = sorted({row["kind"] for row in results.rows}, reverse=True)
    columns = [(kind, task) for task in TASKS for kind in kinds]
    lines = [
        "| rule | " + " | ".join(f"{kind}, {task}" for kind, task in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in arms:
        found = [results.right(arm, 100.0 if arm == "full" else share, task, kind=kind) for kind, task in columns]
        if any(len(v) for v in found):
            lines.append(f"| `{arm}` | " + " | ".join(f"{v.mean():.2f}" if len(v) else "" for v in found) + " |")
    return "\n".join(lines)


def plot_shares(models: Sequence[Results], path: Path) -> None:
    """Draw accuracy against the kept share, for each model and both places of the question."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8 * len(models)), layout="constrained")
    axes = figure.subplots(len(models), 2, squeeze=False)
    for row, results in zip(axes, models, strict=True):
        for ax, task in zip(row, TASKS, strict=True):
            full = results.right("full", 100.0, task).mean()
            ax.axhline(full, color="grey", linewidth=0.8)
            for number, arm in enumerate(PLOTTED):
                shares = [s for s in results.shares(arm) if len(results.right(arm, s, task))]
                means = [results.right(arm, s, task).mean() for s in shares]
                (line,) = ax.plot(shares, means, marker="os^vD*P"[number], label=arm)
                bounds = [interval(results.right(arm, s, task)) for s in shares]
                if bounds:
                    low, high = zip(*bounds, strict=True)
                    ax.fill_between(shares, low, high, alpha=0.12, color=line.get_color())
            when = "at the end" if task == "at_end" else "256 tokens later"
            _label(ax, f"{results.model}: question {when}", "keys kept (% of the text)")
    _save(figure, axes[0][0], path)


def plot_depths(models: Sequence[Results], share: float, path: Path) -> None:
    """Draw accuracy against the depth of the needle at one share, question at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False)
    for ax, results in zip(axes[0], models, strict=True):
        depths = sorted({answer[1] for row in results.rows for answer in row["answers"]})
        for number, arm in enumerate(PLOTTED):
            if share in results.shares(arm):
                means = [results.right(arm, share, "at_end", depth=depth).mean() for depth in depths]
                ax.plot(depths, means, marker="os^vD*P"[number], label=arm)
        _label(ax, f"{results.model}: {share:g} % kept", "depth of the needle (% of the text)")
    _save(figure, axes[0][0], path)


def _label(ax: Any, title: str, across: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(across)
    ax.set_ylabel("needles answered")
    ax.set_ylim(-0.03, 1.03)


def _save(figure: Any, first: Any, path: Path) -> None:
    """Write a figure with one legend for all its axes, that of the first ones."""
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the tables, and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=25.0, help="of the tables by depth and by kind")
    parser.add_argument("--plot", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    models = [Results.load(path) for path in arguments.results]
    for results in models:
        for task in TASKS:
            print(f"\n{results.model}, {task}\n\n{table(results, task)}")
        print(f"\n{results.model}, {arguments.share:g} %, by depth\n")
        print(depth_table(results, "at_end", arguments.share, results.arms()))
        print(f"\n{results.model}, {arguments.share:g} %, by kind\n")
        print(kind_table(results, arguments.share, results.arms()))
    if arguments.plot:
        import matplotlib

        # the same results give the same bytes
        with matplotlib.rc_context({"svg.hashsalt": "pytriattn", "svg.fonttype": "none"}):
            plot_shares(models, arguments.plot / "shares.svg")
            plot_depths(models, arguments.share, arguments.plot / "depths.svg")


if __name__ == "__main__":
    main()
