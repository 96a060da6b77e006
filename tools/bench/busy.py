#!/usr/bin/env python3
"""Decoding on a busy machine: tokens per second with and without a process that spins on one of the CPUs.

    python tools/bench/busy.py --model FILE [--rounds 20] [--beside 5] [--seconds 1] [WAY ...]

A WAY to decode is a number of threads, or ``auto`` for as many as `Llama` takes by itself, and, joined by commas,
variables of the environment: ``2,GOMP_SPINCOUNT=500``. Each way is a process that waits for its
turn; in each round every way decodes for some `--seconds`, in a random order, first alone and, in the first `--beside`
rounds, beside the competitor too. All speeds are compared with that of the first way, alone, in the same round: the
machine's own speed may change from round to round. `--nice` gives decoding and competitor another priority, so that
other programs of the machine count for less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

WORKER = """
import sys, time
from pytriattn import Llama
model, threads, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
n_threads = None if threads == "auto" else int(threads)
with Llama(model, n_ctx=512, n_threads=n_threads, seed=1) as llm:
    prompt = llm.tokenize("Once upon a time there was")
    for _ in sys.stdin:
        n, decoding = 0, 0.0
        while decoding < seconds:
            llm.reset()
            tokens = llm.generate(prompt, max_tokens=60, temperature=0, ignore_eos=True)
            for _ in range(5):
                next(tokens)
            begin = time.perf_counter()
            n += sum(1 for _ in tokens)
            decoding += time.perf_counter() - begin
        print(n / decoding, flush=True)
"""

Speeds = dict[str, float]  # tokens per second of each way


class Worker:
    """A process that decodes in one way."""

    def __init__(self, model: Path, way: str, seconds: float) -> None:
        """Start it; it then waits."""
        threads, *pairs = way.split(",")
        variables = dict(pair.split("=", 1) for pair in pairs)
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(model), threads, str(seconds)],
            env={**ours, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tokens_per_second(self) -> float:
        """Let it decode once."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def competitor() -> Iterator[None]:
    """Let a process spin on one of the CPUs."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.2)
            yield
        finally:
            process.kill()


def run_rounds(workers: dict[str, Worker], n_rounds: int, n_beside: int) -> Iterator[dict[str, Speeds]]:
    """Yield for each round the speeds of all ways, alone and perhaps beside a competitor."""
    chance = random.Random(0)
    for number in range(n_rounds):
        order = chance.sample(list(workers), len(workers))
        found: dict[str, Speeds] = {"alone": {way: workers[way].tokens_per_second() for way in order}, "beside": {}}
        if number < n_beside:
            with competitor():
                found["beside"] = {way: workers[way].tokens_per_second() for way in order}
        yield found


def print_table(rounds: list[dict[str, Speeds]], ways: list[str]) -> None:
    """Print the medians of the rounds, and of their ratios to the first way alone, with the middle half of these."""
    print(f"{len(rounds)} rounds\n{'way':24} {'alone':>7} {'ratio':>7} (middle half)   {'beside':>7} {'ratio':>7}")
    for way in ways:
        cells = [f"{way:24}"]
        for kind in ("alone", "beside"):
            speeds = [found[kind][way] for found in rounds if way in found[kind]]
            ratios = [found[kind][way] / found["alone"][ways[0]] for found in rounds if way in found[kind]]
            if len(speeds) > 1:
                low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
                cells.append(f"{statistics.median(speeds):7.1f} {middle:7.3f} ({low:.3f}, {high:.3f})")
        print("  ".join(cells), flush=True)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", default=["2", "2,GOMP_SPINCOUNT=500", "auto", "1"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--beside", type=int, default=5, help="of the rounds, how many with a competitor too")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    os.nice(options.nice)
    workers: dict[str, Worker] = {}
    rounds: list[dict[str, Speeds]] = []
    try:
        for way in options.ways:
            workers[way] = Worker(options.model, way, options.seconds)
            workers[way].tokens_per_second()  # it has loaded the model then, and is warm
        rounds.extend(run_rounds(workers, options.rounds, options.beside))
    except KeyboardInterrupt:
        pass  # what has been measured counts
    finally:
        for worker in workers.values():
            worker.end()
        print_table(rounds, options.ways)


if __name__ == "__main__":
    main()
