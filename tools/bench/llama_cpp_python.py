#!/usr/bin/env python3
"""Time to first token and tokens/s against llama-cpp-python, as ratios within one run.

    python -m venv other && other/bin/pip install llama-cpp-python==0.3.36       # the release that our pin comes from
    python tools/bench/llama_cpp_python.py other/bin/python [--model smollm2|FILE.gguf] [--rounds 12] [--json FILE]

Both libraries live in a process of their own, with the same threads, context, batch and flash attention. They take
turns: each round gives both the same prompt that neither has seen, and both stream the completion. Ratios are of
    medians, above 1 where we are faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
N_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def open_model(library: str, path: str, n_ctx: int) -> Any:
    """Load a model with one of the two libraries."""
    if library == "pytriattn":
        from pytriattn import Llama

        return Llama(path, n_ctx=n_ctx, n_batch=512, n_threads=N_THREADS, flash_attn=True)
    from llama_cpp import Llama as OtherLlama

    return OtherLlama(
        path,
        n_ctx=n_ctx,
        n_batch=512,
        n_threads=N_THREADS,
        n_threads_batch=N_THREADS,
        flash_attn=True,
        verbose=False,
    )


def work(library: str, path: str, n_ctx: int) -> None:
    """Read one JSON request a line, answer with one JSON line each; runs in either Python."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints stays out of the answers
    llm = open_model(library, path, n_ctx)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        times = []
        for chunk in llm.create_completion(request["tokens"], stream=True, seed=1, **request["options"]):
            if chunk["choices"][0]["text"]:
                times.append(time.perf_counter() - start)
        print(json.dumps({"n": len(times), "first": times[0], "last": times[-1]}), file=answers, flush=True)


class Worker:
    """A process with one of the libraries."""

    def __init__(self, python: str, library: str, path: Path, n_ctx: int) -> None:
        """Start it."""
        command = [python, __file__, "--worker", library, str(path), str(n_ctx)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, tokens: list[int], options: dict[str, Any]) -> dict[str, float]:
        """Complete a prompt; return the chunks and the seconds until the first and the last of them."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"tokens": tokens, "options": options}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker has died; its message is above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def prompts(path: Path, n_tokens: int, rounds: int) -> list[list[int]]:
    """Return different prompts of `n_tokens`."""
    from pytriattn import Llama
    from pytriattn.stats.bundled import bundled_text

    with Llama(path, n_ctx=64) as llm:
        tokens = llm.tokenize(bundled_text(), add_bos=False)
    step = max(1, (len(tokens) - n_tokens) // rounds)
    return [(tokens[i * step :] + tokens)[:n_tokens] for i in range(rounds)]


def compare(
    python: str, path: Path, n_prompt: int, n: int, rounds: int, options: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Return medians for both libraries and the ratios."""
    workers = {
        "pytriattn": Worker(sys.executable, "pytriattn", path, n_prompt + n + 64),
        "llama-cpp-python": Worker(python, "llama-cpp-python", path, n_prompt + n + 64),
    }
    first: dict[str, list[float]] = {name: [] for name in workers}
    rate: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    for number, tokens in enumerate(prompts(path, n_prompt, rounds + 1)):
        for name in order if number % 2 else reversed(order):
            answer = workers[name].run(tokens, {**options, "max_tokens": n})
            if number == 0:
                continue  # caches are cold
            first[name].append(answer["first"])
            rate[name].append((answer["n"] - 1) / (answer["last"] - answer["first"]))
    for worker in workers.values():
        worker.close()
    ours, theirs = order
    return {
        "first_token_s": {name: statistics.median(first[name]) for name in order}
        | {"ratio": statistics.median(b / a for a, b in zip(first[ours], first[theirs], strict=True))},
        "tokens_per_s": {name: statistics.median(rate[name]) for name in order}
        | {"ratio": statistics.median(a / b for a, b in zip(rate[ours], rate[theirs], strict=True))},
    }


def main() -> int:
    """Command line entry."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return 0
    import _options

    parser = _options.parser(__doc__, rounds=12)
    parser.add_argument("python", help="a Python that has llama-cpp-python")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens to generate (default: %(default)s)")
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)
    figures = {}
    settings: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0.0},
        "sampled": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    }
    for name, options in settings.items():
        found = figures[name] = compare(
            arguments.python, path, arguments.prompt, arguments.tokens, arguments.rounds, options
        )
        for what, unit in (("first_token_s", "s to the first token"), ("tokens_per_s", "tokens/s")):
            values = found[what]
            print(
                f"{name:8s} {unit:22s} pytriattn {values['pytriattn']:8.3f}  "
                f"llama-cpp-python {values['llama-cpp-python']:8.3f}  ratio {values['ratio']:.3f}",
                flush=True,
            )
    _options.write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
