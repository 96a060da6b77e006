"""``pytriattn-plot``: pictures of query statistics, and of what a run has kept."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pytriattn.cli.output import read_model
from pytriattn.cli.program import EXIT_OK, run
from pytriattn.cli.sizes import positive
from pytriattn.gguf.identity import model_identity
from pytriattn.plotting.figures import DEFAULT_DISTANCE, check_extension, plot_stats, save_figure
from pytriattn.plotting.kept import load_kept
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["main"]


def _heads(text: str) -> list[tuple[int, int]]:
    pairs = [re.fullmatch(r"\s*(\d{1,6}):(\d{1,6})\s*", part, re.ASCII) for part in text.split(",")]
    if not all(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of layers and heads; write L:H,L:H such as 0:3,12:1")
    return [(int(pair[1]), int(pair[2])) for pair in pairs if pair]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-plot",
        description="Draw a .triattention file: the concentration of every head's bands, and the expected logit "
        "against distance. Needs matplotlib: pip install 'pytriattn[plot]'.",
        epilog="Exit codes: 0 done, 2 error or wrong usage, 130 interrupted.",
    )
    parser.add_argument("stats", metavar="STATS", help="the .triattention file")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the picture to write, .png or .svg")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="the GGUF model: check that it is the statistics' own, draw up to its trained context",
    )
    parser.add_argument(
        "--heads",
        type=_heads,
        metavar="L:H,...",
        help="layers and query heads of the curves (default: three typical ones)",
    )
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="also draw what a run has kept: an .npz file of save_kept"
    )
    parser.add_argument("--distance", type=positive, metavar="N", help="the largest distance of the curves, in tokens")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    check_extension(arguments.output)
    stats = TriAttentionStats.load(arguments.stats)
    distance = arguments.distance or DEFAULT_DISTANCE
    if arguments.model:
        info = read_model(arguments.model)
        stats.check_model(model_identity(info.path), f"the statistics '{arguments.stats}'")
        distance = arguments.distance or info.n_ctx_train or distance
    kept = None if arguments.kept is None else load_kept(arguments.kept)
    save_figure(plot_stats(stats, arguments.heads, kept, max_distance=distance), arguments.output)
    print(f"{arguments.output} ({arguments.output.expanduser().stat().st_size} bytes)")
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run("pytriattn-plot", lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
