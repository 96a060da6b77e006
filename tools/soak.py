#!/usr/bin/env python3
"""Long runs under a budget: memory and time per token stay what they are. Prints a table, and fails if they do not.

    python tools/soak.py [--tokens 200000] [--model FILE] [--tokens-of-model 20000] [--cycles 500]

Three runs: a tiny random model that decodes `--tokens` tokens; with `--model`, a real one that decodes
`--tokens-of-model`; and `--cycles` times loading, reading and closing the tiny one. After a tenth of each run as
warm-up, resident memory may grow by 2 % and CPU time per token may grow by 5 % (medians of the parts of either half). A
machine's speed drifts by more than that, so the time of decoding is divided by that of a second text of the same model,
which is read in between and begun anew in each part.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from models.registry import make_tiny_model  # noqa: E402
from pytriattn import Llama  # noqa: E402

PARTS = 20
REFERENCE_EVERY = 4
MEMORY_GROWTH, TIME_CHANGE = 0.02, 0.05
TINY: dict[str, Any] = {"n_ctx": 1 << 20, "n_threads": 1, "budget": 128, "interval": 64, "window": 32, "mode": "recent"}


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(step: Callable[[int], object], i: int) -> float:
    """Return the CPU time of one step."""
    begin = time.process_time()
    step(i)
    return time.process_time() - begin


def run(name: str, n: int, step: Callable[[int], object], reference: Callable[[int], object] | None = None) -> bool:
    """Call `step` n times, in parts; print what each part took; tell whether it stayed the same. After every fourth
    step comes one of `reference`, counted from 0 in each part: its time is what that of the steps is divided by.
    """
    memory, times = [], []
    for part in range(PARTS):
        begin, end = n * part // PARTS, n * (part + 1) // PARTS
        seconds = compared = 0.0
        for i in range(begin, end):
            seconds += cpu_seconds(step, i)
            if reference is not None and (i - begin) % REFERENCE_EVERY == 0:
                compared += cpu_seconds(reference, (i - begin) // REFERENCE_EVERY)
        memory.append(resident_bytes())
        times.append(seconds / compared if compared else seconds)
        each = seconds / max(1, end - begin)
        print(f"{name} {part + 1:2d}/{PARTS}: {memory[-1] / 2**20:8.1f} MiB, {each * 1e3:8.3f} ms", end="")
        print(f", {times[-1]:.3f} x the reference" if compared else "", flush=True)
    warm = PARTS // 10
    half = (PARTS - warm) // 2
    growth = statistics.median(memory[-half:]) / statistics.median(memory[warm : warm + half]) - 1
    change = statistics.median(times[-half:]) / statistics.median(times[warm : warm + half]) - 1
    is_good = growth <= MEMORY_GROWTH and change <= TIME_CHANGE
    print(f"{name}: {n:,} times, memory {growth:+.2%}, time {change:+.2%}: {'good' if is_good else 'NOT GOOD'}")
    return is_good


def token(i: int) -> int:
    """Return the i-th token of a text that means nothing."""
    return 3 + (i * 7919) % 240


def decode(name: str, model: Path, n: int, **settings: Any) -> bool:
    """Decode n tokens one by one."""
    with Llama(model, **settings) as llm, Llama(model, **settings) as other:
        llm.eval([3, 4, 5])

        def step(i: int) -> None:
            llm.eval([token(i)])

        def reference(i: int) -> None:
            if i == 0:
                other.reset()
            other.eval([token(i)])

        is_good = run(name, n, step, reference)
        counters = llm.kv_stats()
        print(f"{name}: {counters['evictions']:,} evictions, {counters['cells_allocated']:,} cells allocated")
    return is_good


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Long runs: memory and time per token stay what they are.")
    parser.add_argument("--tokens", type=int, default=200_000, help="that the tiny model decodes (default: 200,000)")
    parser.add_argument("--mode", default="recent", help="how the tiny model evicts: a mode that needs no statistics")
    parser.add_argument("--model", type=Path, help="a real model")
    parser.add_argument("--tokens-of-model", type=int, default=20_000, help="that it decodes (default: 20,000)")
    parser.add_argument("--threads", type=int, default=1, help="of the real model")
    parser.add_argument("--cycles", type=int, default=500, help="of loading and closing (default: 500)")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny_model("llama", Path(folder))
        if options.tokens:
            results.append(decode("tiny", tiny, options.tokens, **{**TINY, "mode": options.mode}))
        if options.model is not None:
            settings = {"n_ctx": 1 << 20, "budget": 512, "n_threads": options.threads}
            results.append(decode(options.model.name, options.model, options.tokens_of_model, **settings))

        def cycle(_: int) -> None:
            with Llama(tiny, **{**TINY, "mode": options.mode}) as llm:
                llm.eval(list(range(3, 240)))

        if options.cycles:
            results.append(run("load and close", options.cycles, cycle))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
