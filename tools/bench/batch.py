#!/usr/bin/env python3
"""Throughput of `Llama.generate_batch` against llama.cpp's own batched bench, as ratios within one run.

    python tools/bench/batch.py path/to/llama-batched-bench [--model smollm2|FILE.gguf] [--budget N] [--json FILE]

Build ``llama-batched-bench`` from the pinned source with the same CPU flags. It decodes random tokens and draws
nothing; ours reads real prompts, draws every token and writes the texts. They take turns. Ratios are of medians, above
1 where we are faster.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import _options
from pytriattn import Llama
from pytriattn._util.cpus import usable_cpus
from pytriattn.stats.bundled import bundled_text


def bench(binary: str, path: Path, n_batch: int, n_prompt: int, n: int) -> dict[str, float]:
    """Run llama.cpp's bench; return tokens/s of reading, of decoding and of both together."""
    threads = str(usable_cpus())
    command = [binary, "-m", str(path), "-c", str(n_batch * (n_prompt + n + 64)), "-b", "2048", "-ub", "512"]
    command += ["-npp", str(n_prompt), "-ntg", str(n), "-npl", str(n_batch), "-t", threads, "-tb", threads]
    done = subprocess.run(
        [*command, "-fa", "on", "--output-format", "jsonl"], check=True, capture_output=True, text=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = json.loads(line)
    return {"decoding": found["speed_tg"], "all": found["speed"], "reading": found["speed_pp"]}


def ours(llm: Llama, texts: list[list[int]], n: int) -> dict[str, float]:
    """Complete the prompts; return the same figures."""

    def seconds(max_tokens: int) -> float:
        start = time.perf_counter()
        done = llm.generate_batch(texts, max_tokens, temperature=0.0, ignore_eos=True)
        taken = time.perf_counter() - start
        assert all(completion["usage"]["completion_tokens"] == max_tokens for completion in done)
        return taken

    reading, whole = seconds(1), seconds(n + 1)
    n_read, n_drawn = sum(map(len, texts)), len(texts) * n
    return {"decoding": n_drawn / (whole - reading), "all": (n_read + n_drawn) / whole, "reading": n_read / reading}


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=5)
    parser.add_argument("binary", help="llama-batched-bench")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to generate for each (default: %(default)s)")
    parser.add_argument("--budget", type=int, help="decode under this budget")
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)
    figures = {}
    for n_batch in arguments.batches:
        n_ctx = arguments.prompt + arguments.tokens + 64
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bench": []}
        with Llama(path, n_ctx=n_ctx, n_seq_max=n_batch, budget=arguments.budget, flash_attn=True) as llm:
            tokens = llm.tokenize(bundled_text())
            texts = [tokens[i * 50 : i * 50 + arguments.prompt] for i in range(n_batch)]
            for _ in range(arguments.rounds):
                runs["ours"].append(ours(llm, texts, arguments.tokens))
                runs["bench"].append(bench(arguments.binary, path, n_batch, arguments.prompt, arguments.tokens))
        found = {
            what: {name: statistics.median(run[what] for run in runs[name]) for name in runs}
            for what in ("reading", "decoding", "all")
        }
        figures[n_batch] = found
        for what, values in found.items():
            ratio = values["ours"] / values["bench"]
            print(
                f"{n_batch:3d} sequences, {what:8s} pytriattn {values['ours']:8.1f} tokens/s  "
                f"llama-batched-bench {values['bench']:8.1f}  ratio {ratio:.3f}",
                flush=True,
            )
    _options.write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
