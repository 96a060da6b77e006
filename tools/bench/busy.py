#!/usr/bin/env python3
"""Decoding on a busy machine: tokens per second with and without a process that spins on one of the CPUs.

    python tools/bench/busy.py --model FILE [--rounds 8] [--beside 3] [--seconds 4] [--keep FILE] [WAY ...]

A WAY to decode is a number of threads or ``idle`` and, joined by commas, variables of the environment:
``2,GOMP_SPINCOUNT=1000``. ``unset`` is two threads for which nobody says how long they spin, so that GNU's OpenMP takes
its own default. In each round every way decodes once alone, in turns forwards and backwards, and in the first
`--beside` rounds once beside the competitor. All speeds are compared with that of the first way, alone, in the same
round. `--keep` adds the rounds to those in a file. `--nice` gives decoding and competitor another priority, so that
other programs of the machine count for less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DECODE = """
import sys, time
from pytriattn import Llama
model, threads, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
n_threads = threads if threads == "idle" else int(threads)
with Llama(model, n_ctx=512, n_threads=n_threads, seed=1) as llm:
    prompt = llm.tokenize("Once upon a time there was")
    n, decoding = 0, 0.0
    while decoding < seconds:
        llm.reset()
        tokens = llm.generate(prompt, max_tokens=200, temperature=0, ignore_eos=True)
        for _ in range(5):
            next(tokens)
        begin = time.perf_counter()
        n += sum(1 for _ in tokens)
        decoding += time.perf_counter() - begin
    print(n / decoding)
"""

# The package sets how long threads spin unless one of two variables is there. OpenMP complains of an empty one and
# takes its default.
UNSET = {"OMP_WAIT_POLICY": ""}

Speeds = dict[str, float]  # tokens per second of each way


def tokens_per_second(model: Path, way: str, seconds: float) -> float:
    """Decode in a process of its own."""
    threads, *pairs = way.split(",")
    variables = dict(pair.split("=", 1) for pair in pairs)
    if way == "unset":
        threads, variables = "2", UNSET
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", DECODE, str(model), threads, str(seconds)]
    done = subprocess.run(command, env={**ours, **variables}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


@contextlib.contextmanager
def competitor() -> Iterator[None]:
    """Let a process spin on one of the CPUs."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.2)
            yield
        finally:
            process.kill()


def one_round(options: argparse.Namespace, number: int) -> dict[str, Speeds]:
    """Return the speeds of all ways, alone and perhaps beside a competitor."""
    ways = options.ways if number % 2 == 0 else options.ways[::-1]
    found = {"alone": {way: tokens_per_second(options.model, way, options.seconds) for way in ways}, "beside": {}}
    if number < options.beside:
        with competitor():
            found["beside"] = {way: tokens_per_second(options.model, way, options.seconds) for way in ways}
    return found


def print_table(rounds: list[dict[str, Speeds]], ways: list[str]) -> None:
    """Print the medians of the rounds, and of their ratios to the first way alone."""
    print(f"{len(rounds)} rounds\n{'way':28} {'alone':>7} {'ratio':>7} (least, most) {'beside':>7} {'ratio':>6}")
    for way in ways:
        cells = [f"{way:28}"]
        for kind in ("alone", "beside"):
            speeds = [found[kind][way] for found in rounds if way in found[kind]]
            ratios = [found[kind][way] / found["alone"][ways[0]] for found in rounds if way in found[kind]]
            if speeds:
                cells.append(f"{statistics.median(speeds):7.1f} {statistics.median(ratios):7.3f}")
                cells.append(f"({min(ratios):.2f}, {max(ratios):.2f})")
        print("  ".join(cells), flush=True)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", default=["unset", "2", "idle", "1"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--beside", type=int, default=3, help="of the rounds, how many with a competitor too")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    os.nice(options.nice)
    rounds = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else []
    for number in range(options.rounds):
        rounds.append(one_round(options, number))
    if options.keep:
        options.keep.write_text(json.dumps(rounds))
    print_table(rounds, options.ways)


if __name__ == "__main__":
    main()
