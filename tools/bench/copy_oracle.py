#!/usr/bin/env python3
"""What a copy could have at best: oracles that know that the text will be repeated, in the quality lab.

    python tools/bench/copy_oracle.py MODEL.gguf [--ratios 2,4,8 | --budgets 1024] [--tokens 1024] [--documents 2]
        [-o RESULTS.json]

A text is copied token by token, so each of its keys is needed once, at a time that is known. `needed_next` keeps the
keys of the text that are needed next, the same for all heads; `scattered` gives each head other runs of 16 of them.
Both let go of what has been copied. Prints R and the perplexity of the copy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytriattn import EvalSettings, Rule, register_rule, run_eval
from pytriattn.cli.sizes import positives
from pytriattn.lab.report import levels_of
from pytriattn.lab.rules.base import Given, LayerView, Score, View
from pytriattn.lab.scoring import own_metrics, score_tasks

WINDOW = 16  # who knows the future needs no window; the engine must have one
RUN = 16  # tokens of a text that a head keeps together
Floats = npt.NDArray[np.float32]


def oracles(n: int) -> dict[str, Score]:
    """Return the rules for a text of `n` tokens that is repeated at once."""

    def needed_next(layer: LayerView, view: View, given: Given) -> Floats:
        at = layer.origins()
        return np.where(at >= view.position - n, 2 * n - at, 0).astype(np.float32)

    def scattered(layer: LayerView, view: View, given: Given) -> Floats:
        at = layer.origins()
        rng = np.random.default_rng([given.seed, layer.layer])
        of_runs = 1.0 + rng.random((layer.n_head_kv, 2 * n // RUN + 1))
        of_keys = np.take_along_axis(of_runs, at // RUN, axis=1)
        return np.where((at >= view.position - n) & (at < n), of_keys, 0).astype(np.float32)

    return {"needed_next": needed_next, "scattered": scattered}


def main() -> None:
    """Compute the cells and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--ratios", type=positives, default=(2, 4, 8))
    sizes.add_argument("--budgets", type=positives, default=())
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    rules = oracles(args.tokens // 2)
    for name, score in rules.items():
        register_rule(Rule(name, "an oracle that knows of the copy", score=score))
    settings = EvalSettings(
        rules=tuple(rules),
        tasks=("copy",),
        ratios=args.ratios,
        budgets=args.budgets,
        documents=args.documents,
        tokens=args.tokens,
        window=WINDOW,
    )
    results = run_eval(args.model, settings, output=args.output, n_threads=args.threads)
    for name in rules:
        for kind, size in levels_of(results):
            found = score_tasks(results, name, (kind, size))["copy"]
            retained = "-" if found.retained is None else f"{found.retained:.2f}"
            print(f"{name:12} {kind} {size}: R {retained}, perplexity {own_metrics(found)['perplexity']:.2f}")


if __name__ == "__main__":
    main()
