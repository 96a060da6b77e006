#!/usr/bin/env python3
"""What the ways of choosing keys cost, as ratios within one run: reading a prompt, decoding after it, calibrating.

    python tools/bench/modes.py [--model smollm2|FILE.gguf] [--json FILE]

All ways take turns, in another order in each round, so that a slow moment of the machine hits them all.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import _options
from decode import filler, seconds_for
from pytriattn import Llama
from pytriattn._util.cpus import usable_cpus
from pytriattn.stats.bundled import BUNDLED_TOKENS, BUNDLED_TOKENS_FIT, bundled_text
from pytriattn.stats.calibration import calibrate_native

QUESTION = 32  # tokens at the end of the prompt
SEED = 0


class Way(NamedTuple):
    """A way of choosing keys: arguments of `Llama`, and whether the end of the prompt is its question."""

    options: dict[str, Any]
    asks: bool = False


WAYS = {
    "recent": Way({"mode": "recent"}),
    "per_layer_head": Way({"mode": "per_layer_head"}),
    "fitted": Way({"mode": "fitted"}),
    "fitted, question": Way({"mode": "fitted"}, asks=True),
    "reread": Way({"mode": "fitted", "reread": True}),
}


def read_and_decode(
    path: Path, n_prompt: int, n_decoded: int, budget: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return for each way the seconds of reading and of decoding, round by round."""
    n_threads = usable_cpus()
    times: dict[str, dict[str, list[float]]] = {name: {"reading": [], "decoding": []} for name in WAYS}
    shuffler = random.Random(SEED)
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(
                Llama(path, n_ctx=n_prompt + n_decoded + 256, budget=budget, n_threads=n_threads, **way.options)
            )
            for name, way in WAYS.items()
        }
        tokens = filler(next(iter(opened.values())), n_prompt + 1 + n_decoded)
        for number in range(rounds + 1):  # in the first one all is warmed up
            for name in shuffler.sample(list(WAYS), len(WAYS)):
                llm = opened[name]
                llm.reset()
                prompt = llm.check_tokens(tokens[:n_prompt])
                question = (n_prompt - QUESTION, n_prompt) if WAYS[name].asks else None
                start = time.perf_counter()
                llm.read_prompt(prompt, question=question)
                llm.eval(tokens[n_prompt : n_prompt + 1])  # with a second reading the prompt's last eviction comes now
                reading = time.perf_counter() - start
                decoding = seconds_for(llm, tokens[n_prompt + 1 :])
                if number > 0:
                    times[name]["reading"].append(reading)
                    times[name]["decoding"].append(decoding)
    return times


def calibration(path: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of calibrating on the bundled text, with and without a fit."""
    ways = {
        "without a fit, first start": (BUNDLED_TOKENS, False),
        "without a fit": (BUNDLED_TOKENS_FIT, False),
        "fitted, first start": (BUNDLED_TOKENS_FIT, True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with Llama(path, n_ctx=256) as llm:
        for _ in range(rounds):
            for name, (n_tokens, fit) in ways.items():
                start = time.perf_counter()
                calibrate_native(
                    llm._open_model(),
                    llm.identity,
                    bundled_text(),
                    n_tokens=n_tokens,
                    n_ctx=n_tokens,
                    n_threads=usable_cpus(),
                    progress=None,
                    fit=fit,
                )
                times[name].append(time.perf_counter() - start)
    return times


def ratios(of: list[float], to: list[float]) -> str:
    """Return the median of the rounds' ratios, and the smallest and the largest one."""
    found = sorted(a / b for a, b in zip(of, to, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=5)
    parser.add_argument("--prompt", type=int, default=4096, help="tokens that are read (default: %(default)s)")
    parser.add_argument("--decoded", type=int, default=256, help="tokens decoded after it (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=1024)
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)

    times = read_and_decode(path, arguments.prompt, arguments.decoded, arguments.budget, arguments.rounds)
    print(f"a prompt of {arguments.prompt} tokens, then {arguments.decoded} more, budget {arguments.budget}")
    print("times, as ratios to those of per_layer_head and of fitted: median (lowest to highest)")
    for part, n in (("reading", arguments.prompt), ("decoding", arguments.decoded)):
        for name, found in times.items():
            per_s = n / statistics.median(found[part])
            others = "   ".join(
                f"{ratios(found[part], times[base][part]):22s}" for base in ("per_layer_head", "fitted")
            )
            print(f"  {part:8s} {name:17s} {per_s:7.1f} tokens/s   {others}")
    calibrating = calibration(path, arguments.rounds)
    for name, seconds in calibrating.items():
        print(f"  calibrating {name:27s} {statistics.median(seconds):6.2f} s")
    first, same, fitted = calibrating.values()
    print(f"  with a fit: {ratios(fitted, same)} for as many tokens, {ratios(fitted, first)} at the first start")
    _options.write_json(arguments.json, {"times": times, "calibrating": calibrating})
    return 0


if __name__ == "__main__":
    sys.exit(main())
