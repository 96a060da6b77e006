"""``pytriattn-eval``: measure what rules for keeping keys lose."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group, RenderableType
from tqdm import tqdm

from pytriattn.cli.output import print_json, print_tables
from pytriattn.cli.program import EXIT_OK, run
from pytriattn.cli.sizes import natural, positive, positives
from pytriattn.lab.plots import plot_quality
from pytriattn.lab.report import tables
from pytriattn.lab.results import EvalResults
from pytriattn.lab.rules import DEFAULT_RULES, RULES
from pytriattn.lab.runner import run_eval
from pytriattn.lab.settings import HALVES, EvalSettings
from pytriattn.lab.tasks import TASKS
from pytriattn.plotting.figures import check_extension, save_figure

__all__ = ["main"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-eval",
        description="Measure what rules for keeping keys lose, against the full cache and a text without the "
        "information.",
        epilog=f"Tasks: {', '.join(TASKS)}. Rules: {', '.join(RULES)}; '+pinned' behind a rule protects the prompt; "
        "'all' is every rule. Exit codes: 0 done, 2 error or wrong usage, 130 interrupted.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="the GGUF model")
    parser.add_argument("--rules", type=_names, metavar="R,...", help=f"default: {','.join(DEFAULT_RULES)}")
    parser.add_argument("--tasks", type=_names, metavar="T,...", help="default: all")
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--ratios", type=positives, metavar="N,...", help="length of a document / budget (default: 4)")
    levels.add_argument("--budgets", type=positives, metavar="N,...", help="keys kept per layer and KV head")
    parser.add_argument("--documents", type=positive, metavar="N", help="documents of each kind (default: 2)")
    parser.add_argument("--tokens", type=positive, metavar="N", help="tokens of a document (default: 2048)")
    parser.add_argument(
        "--half", choices=HALVES, help="documents to choose a rule with, or to report on (default: report)"
    )
    parser.add_argument(
        "--seed", type=natural, metavar="S", help="of documents and of rules that draw by chance (default: 0)"
    )
    parser.add_argument(
        "--window", type=natural, metavar="N", help="newest keys, never evicted (default: what Llama takes)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few short documents and rules; further options override it"
    )
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="take ordinary text from here (default: Python's manual)"
    )
    parser.add_argument(
        "--stats", type=Path, metavar="FILE", help="a .triattention file (default: the bundled text is measured)"
    )
    parser.add_argument(
        "--again", type=_names, default=(), metavar="R,...", help="compute the cells of these rules again"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="results, added to (default: MODEL's name.quality.json)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw quality against budget and age, .png or .svg")
    parser.add_argument("--json", action="store_true", help="print the results as a JSON object and no tables")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all usable)")
    return parser


def _settings(arguments: argparse.Namespace) -> EvalSettings:
    base = EvalSettings().quick() if arguments.quick else EvalSettings()
    names = ("rules", "tasks", "ratios", "budgets", "documents", "tokens", "half", "seed", "window")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return replace(base, **given)


def _measure(arguments: argparse.Namespace, settings: EvalSettings, output: Path) -> EvalResults:
    hidden = not sys.stderr.isatty()
    with tqdm(total=0, unit="tok", unit_scale=True, file=sys.stderr, disable=hidden, smoothing=0.05) as bar:

        def progress(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_description(name, refresh=False)
            bar.update(done - bar.n)

        return run_eval(
            arguments.model,
            settings,
            output=output,
            text=arguments.text,
            triattn_stats=arguments.stats,
            again=arguments.again,
            n_threads=arguments.threads,
            progress=progress,
        )


def _run(arguments: argparse.Namespace, output: Path) -> int:
    if arguments.plot is not None:
        check_extension(arguments.plot)
    results = _measure(arguments, _settings(arguments), output)
    written: list[RenderableType] = [f"{output}: {len(results.cells)} cells"]
    if arguments.plot is not None:
        save_figure(plot_quality(results), arguments.plot)
        written.append(f"{arguments.plot}: {arguments.plot.expanduser().stat().st_size} bytes")
    if arguments.json:
        print_json(results.to_json())
    else:
        print_tables(Group(tables(results), *written))
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    output = arguments.output or Path(f"{arguments.model.stem}.quality.json")
    note = f"interrupted; what has been computed is in '{output}', and the same command goes on from there"
    return run("pytriattn-eval", lambda: _run(arguments, output), interrupted=note)


if __name__ == "__main__":
    sys.exit(main())
