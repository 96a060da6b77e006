"""``pytriattn-convert``: statistics files of other programs to ``.triattention`` files and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytriattn.cli.program import EXIT_FAILED, EXIT_OK, run
from pytriattn.conversion.files import FORMATS, convert_file

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-convert",
        description="Convert query statistics between pytriattn's .triattention, the .pt files of the published code, "
        "TRIA (.bin) and the .triattention files of llama.cpp forks. The contents of IN tell its format. No code in a "
        ".pt file is executed.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("source", metavar="IN", type=Path, help="the file to convert")
    parser.add_argument("output", metavar="OUT", type=Path, help="the file to write")
    parser.add_argument("-m", "--model", required=True, type=Path, help="the GGUF model that the statistics are of")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="format of OUT; default: by its extension (.triattention: pytriattn, .bin: tria, .pt: pt)",
    )
    parser.add_argument(
        "--ignore-rope-theta",
        action="store_true",
        help="accept a file with another RoPE base than the model's: some programs write a default there",
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    converted = convert_file(
        arguments.source,
        arguments.output,
        arguments.model,
        format_name=arguments.format,
        ignore_rope_theta=arguments.ignore_rope_theta,
    )
    for note in converted.notes:
        print(f"pytriattn-convert: note: {note}", file=sys.stderr)
    stats = converted.stats
    print(f"model          {stats.model}")
    print(f"read           {arguments.source} ({converted.source_format})")
    print(f"layers         {len(stats.layers)} with full attention")
    print(f"concentration  {stats.mean_concentration():.3f} (mean of R; 1: all queries point the same way)")
    print(f"written        {arguments.output} ({arguments.output.stat().st_size} bytes)")
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run("pytriattn-convert", lambda: _run(arguments), exit_error=EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main())
