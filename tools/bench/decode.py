#!/usr/bin/env python3
"""Speed and memory of budgeted decoding, as ratios within one run.

    python tools/bench/decode.py [--model smollm2|FILE.gguf] [--json FILE]

Prints, for decoding at a position far into a text: tokens/s with the full cache and with a budget (alternating, so that
a slow moment of the machine hits both), bytes allocated for K and V, the share of decoding time spent on eviction, and
the speed of `Llama.generate` against a minimal C++ loop over the same library.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _options
from pytriattn import Llama
from pytriattn._native import core
from pytriattn._util.cpus import usable_cpus
from pytriattn.stats.bundled import bundled_text


def filler(llm: Llama, n: int) -> list[int]:
    """Return `n` tokens of text."""
    tokens = llm.tokenize(bundled_text())
    return (tokens * (n // len(tokens) + 1))[:n]


def seconds_for(llm: Llama, tokens: list[int]) -> float:
    """Return the seconds that feeding these tokens one by one takes, sampling left out."""
    context = llm._open_context()
    start = time.perf_counter()
    for token in tokens:
        context.step([0], [token])
    return time.perf_counter() - start


def decode_at(path: Path, position: int, budget: int, rounds: int, n: int) -> dict[str, float]:
    """Compare the full cache and a budget at a position."""
    with (
        Llama(path, n_ctx=position + 256 + rounds * n) as full,
        Llama(path, n_ctx=position + 256 + rounds * n, budget=budget) as small,
    ):
        tokens = filler(full, position + rounds * n)
        for llm in (full, small):
            llm.read_prompt(llm.check_tokens(tokens[:position]))
        times: dict[str, list[float]] = {"full": [], "small": []}
        before: dict[str, Any] = {**small.kv_stats()}
        for i in range(rounds):
            step = tokens[position + i * n : position + (i + 1) * n]
            times["full"].append(seconds_for(full, step))
            times["small"].append(seconds_for(small, step))
        after: dict[str, Any] = {**small.kv_stats()}
        whole = full.kv_stats()
        eviction = sum(
            after[key] - before[key] for key in ("scoring_seconds", "selection_seconds", "compaction_seconds")
        )
        parts = {
            key: after[f"{key}_seconds"] - before[f"{key}_seconds"]
            for key in ("scoring", "selection", "compaction", "decoding")
        }
        return {
            "full_tokens_per_s": n / statistics.median(times["full"]),
            "budget_tokens_per_s": n / statistics.median(times["small"]),
            "speedup": statistics.median(times["full"]) / statistics.median(times["small"]),
            "evictions": after["evictions"] - before["evictions"],
            "eviction_share": eviction / parts["decoding"],
            "eviction_ms": 1000 * eviction / max(1, after["evictions"] - before["evictions"]),
            **{f"{key}_share": value / parts["decoding"] for key, value in parts.items() if key != "decoding"},
            "full_kv_bytes": whole["kv_bytes"],
            "budget_kv_bytes": after["kv_bytes"],
        }


def kv_ratio(path: Path, n_ctx: int, budget: int, *, cache_type: str = "f16", **options: Any) -> dict[str, float]:
    """Compare the bytes allocated for a run of `n_ctx` tokens: an f16 cache of all of them, and a budget."""
    with (
        Llama(path, n_ctx=n_ctx) as full,
        Llama(path, n_ctx=n_ctx, budget=budget, type_k=cache_type, type_v=cache_type, **options) as small,
    ):
        a, b = full.kv_stats(), small.kv_stats()
    kept = b["kv_bytes"] / b["cells_allocated"] * budget
    return {
        "full_kv_bytes": a["kv_bytes"],
        "budget_kv_bytes": b["kv_bytes"],
        "ratio": b["kv_bytes"] / a["kv_bytes"],
        "kept_ratio": kept / a["kv_bytes"],
    }


def python_overhead(path: Path, n_prompt: int, n: int, rounds: int) -> dict[str, float]:
    """Compare `Llama.generate` with a C++ loop that does nothing but decode and take the likeliest token."""
    ours, theirs = [], []
    with Llama(path, n_ctx=n_prompt + n + 64) as llm:
        prompt = filler(llm, n_prompt)
        for _ in range(rounds):
            generation = llm.generate(prompt, max_tokens=n + 1, temperature=0, ignore_eos=True)
            next(generation)  # drawn from the prompt's logits: no step yet
            start = time.perf_counter()
            tokens = list(generation)
            ours.append((time.perf_counter() - start) / len(tokens))
            run = core.testing.reference_loop(
                llm._open_model(), prompt, n_generate=n, n_ctx=n_prompt + n + 64, n_threads=usable_cpus()
            )
            theirs.append(run.seconds / n)
    return {
        "generate_tokens_per_s": 1 / statistics.median(ours),
        "reference_tokens_per_s": 1 / statistics.median(theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours),
    }


def report(figures: dict[str, dict[str, float]], position: int, budget: int) -> None:
    """Print the figures."""
    decode, memory, python = figures["decode"], figures["memory"], figures["python"]

    def mib(n_bytes: float) -> str:
        return f"{n_bytes / 2**20:.1f} MiB"

    print(f"decoding after {position} tokens, budget {budget}")
    for name in ("full", "budget"):
        print(
            f"  {name:8s} {decode[f'{name}_tokens_per_s']:7.1f} tokens/s, {mib(decode[f'{name}_kv_bytes'])} of K and V"
        )
    print(f"  speed-up {decode['speedup']:7.2f} x")
    parts = ", ".join(f"{key} {100 * decode[f'{key}_share']:.2f} %" for key in ("scoring", "selection", "compaction"))
    print(
        f"  eviction {100 * decode['eviction_share']:7.2f} % of decoding time: {parts}; "
        f"{decode['evictions']:.0f} evictions of {decode['eviction_ms']:.1f} ms"
    )
    print(
        f"8,000 tokens with budget 512 allocate {mib(memory['budget_kv_bytes'])}, "
        f"the full cache {mib(memory['full_kv_bytes'])}: 1/{1 / memory['ratio']:.1f}"
    )
    for name in ("f16", "q4_0"):
        long = figures[f"memory_32k_{name}"]
        print(
            f"32,768 tokens with budget 3,072 in {name} allocate {mib(long['budget_kv_bytes'])}, the full f16 cache "
            f"{mib(long['full_kv_bytes'])}: 1/{1 / long['ratio']:.1f}; the kept keys alone are "
            f"1/{1 / long['kept_ratio']:.1f}"
        )
    print(
        f"Llama.generate {python['generate_tokens_per_s']:.1f} tokens/s, "
        f"minimal C++ loop {python['reference_tokens_per_s']:.1f}: ratio {python['ratio']:.3f}"
    )


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=4)
    parser.add_argument("--position", type=int, default=7600, help="where decoding is timed (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=1024)
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)

    figures = {
        "decode": decode_at(path, arguments.position, arguments.budget, arguments.rounds, 128),
        "memory": kv_ratio(path, 8000, 512),
        "memory_32k_f16": kv_ratio(path, 32768, 3072, n_ubatch=128),
        "memory_32k_q4_0": kv_ratio(path, 32768, 3072, n_ubatch=128, cache_type="q4_0"),
        "python": python_overhead(path, 256, 128, 5),
    }
    report(figures, arguments.position, arguments.budget)
    _options.write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
