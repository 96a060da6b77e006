#!/usr/bin/env python3
"""Decoding on a busy machine: tokens per second with and without a process that spins on one of the CPUs.

    python tools/bench/busy.py --model FILE [--threads 2] [--tokens 60] [--runs 3] [--set NAME=VALUE ...]

Each `--set` is one more way to decode: variables of the environment joined by commas (``GOMP_SPINCOUNT=0``). `--nice`
gives decoding and competitor another priority, so that other programs of the machine count for less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

DECODE = """
import sys, time
from pytriattn import Llama
with Llama(sys.argv[1], n_ctx=1024, n_threads=int(sys.argv[2]), seed=1) as llm:
    llm.eval(llm.tokenize("Once upon a time there was"))
    for token in llm.generate(None, max_tokens=5, temperature=0, ignore_eos=True):
        pass
    n, begin = 0, time.monotonic()
    for token in llm.generate(None, max_tokens=int(sys.argv[3]), temperature=0, ignore_eos=True):
        n += 1
        if time.monotonic() - begin > 10:
            break
    print(n / (time.monotonic() - begin))
"""


def tokens_per_second(model: Path, threads: int, n: int, variables: dict[str, str]) -> float:
    """Decode in a process of its own."""
    command = [sys.executable, "-c", DECODE, str(model), str(threads), str(n)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured(options: argparse.Namespace, variables: dict[str, str]) -> tuple[float, float]:
    """Return tokens per second: alone, and beside a competitor."""
    arguments = (options.model, options.threads, options.tokens, variables)
    alone, beside = [], []
    for _ in range(options.runs):
        alone.append(tokens_per_second(*arguments))
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as competitor:
            try:
                time.sleep(0.2)
                beside.append(tokens_per_second(*arguments))
            finally:
                competitor.kill()
    return statistics.median(alone), statistics.median(beside)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Tokens per second with and without a competitor.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE,...")
    options = parser.parse_args()
    os.nice(options.nice)
    print(f"{'variables':40} {'alone':>8} {'beside':>8}  beside : alone")
    for text in ["", *options.set]:
        variables = dict(pair.split("=", 1) for pair in text.split(",") if pair)
        alone, beside = measured(options, variables)
        print(f"{text or 'as it is':40} {alone:8.1f} {beside:8.1f}  {beside / alone:.2f}", flush=True)


if __name__ == "__main__":
    main()
