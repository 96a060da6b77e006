"""``pytriattn-calibrate``: measure a model's query statistics on a text and write a ``.triattention`` file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pytriattn._native import backends, core
from pytriattn.cli.program import EXIT_FAILED, EXIT_OK, run
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import check_model_file, model_identity
from pytriattn.stats.calibration import DEFAULT_TOKENS, calibrate_native
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-calibrate",
        description="Measure the query statistics of a GGUF model on a text and write them to a .triattention file.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument(
        "corpus", nargs="+", metavar="CORPUS", help="text files (UTF-8), read in this order; '-' is standard input"
    )
    parser.add_argument("-m", "--model", required=True, type=Path, help="the GGUF model")
    parser.add_argument(
        "-o", "--output", type=Path, help="the file to write; default: the model's name with .triattention"
    )
    parser.add_argument(
        "--tokens", type=int, default=DEFAULT_TOKENS, metavar="N", help="tokens to read at most (default: %(default)s)"
    )
    parser.add_argument(
        "--ctx",
        type=int,
        default=2048,
        metavar="N",
        help="read the text in pieces of this many tokens (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: all usable)")
    parser.add_argument(
        "--n-gpu-layers", type=int, default=-1, metavar="N", help="layers on the GPU, -1: all (default: %(default)s)"
    )
    return parser


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise StatsError(f"the text '{name}' cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StatsError(f"the text '{name}' is not UTF-8: {error}") from error


def _fit(stats: TriAttentionStats) -> str:
    if stats.fit_r2 is None:
        return "none: keys can be chosen by the published score alone"
    return f"{stats.fit_r2:.3f} (held-out R² of the attention that keys got; 1: all of it is foreseen)"


def _summary(stats: TriAttentionStats, output: Path, seconds: float) -> str:
    bands = sorted({len(layer.omega) for layer in stats.layers})
    return "\n".join(
        [
            f"model          {stats.model}",
            f"tokens         {stats.n_tokens}",
            f"layers         {len(stats.layers)} with full attention",
            f"bands          {'/'.join(map(str, bands))} per head",
            f"concentration  {stats.mean_concentration():.3f} (mean of R; 1: all queries point the same way)",
            f"fit            {_fit(stats)}",
            f"seconds        {seconds:.1f}",
            f"written        {output} ({output.stat().st_size} bytes)",
        ]
    )


def _run(arguments: argparse.Namespace) -> int:
    text = "\n".join(_read(name) for name in arguments.corpus)
    path = check_model_file(arguments.model)
    output = arguments.output or path.with_suffix(".triattention")
    if output.exists() and output.samefile(path):
        raise StatsError(f"'{output}' is the model itself; write the statistics to another file")
    if not output.parent.is_dir():
        raise StatsError(f"the folder '{output.parent}' does not exist, so '{output}' cannot be written")
    start = time.monotonic()
    backends.require()
    model = core.Model(path, arguments.n_gpu_layers)
    with tqdm(
        total=arguments.tokens, unit="tok", desc="calibrating", file=sys.stderr, disable=not sys.stderr.isatty()
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        stats = calibrate_native(
            model,
            model_identity(path),
            text,
            n_tokens=arguments.tokens,
            n_ctx=arguments.ctx,
            n_threads=arguments.threads,
            progress=progress,
        )
    stats.save(output)
    print(_summary(stats, output, time.monotonic() - start))
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run(
        "pytriattn-calibrate",
        lambda: _run(arguments),
        exit_error=EXIT_FAILED,
        interrupted="interrupted, nothing was written",
    )


if __name__ == "__main__":
    sys.exit(main())
