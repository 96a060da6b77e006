"""``pytriattn-inspect``: what a GGUF model is, and the memory that its KV cache takes with and without a budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytriattn.cli.output import add_cache_options, cache_options, print_json, print_tables, read_model
from pytriattn.cli.program import EXIT_OK, run
from pytriattn.reports.inspection import inspect_model

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-inspect",
        description="Show the layers, heads and RoPE of a GGUF model, and the memory that its KV cache takes with and "
        "without a budget. Only the file's header is read.",
        epilog="Exit codes: 0 done, 2 error or wrong usage, 130 interrupted.",
    )
    parser.add_argument("model", metavar="MODEL", help="the GGUF model")
    add_cache_options(parser, needs_budget=False)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    inspection = inspect_model(read_model(arguments.model), cache_options(arguments), arguments.vram)
    if arguments.json:
        print_json(inspection.to_json())
    else:
        print_tables(inspection.to_tables())
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run("pytriattn-inspect", lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
