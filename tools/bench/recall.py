#!/usr/bin/env python3
"""How well a budgeted cache remembers: texts read twice, perplexity of what follows the first `budget` tokens.

    python tools/bench/recall.py [--model smollm2|gemma3|FILE.gguf] [--modes ...] [--json FILE]

Each text is some 1,600 tokens long and is read twice in a row, so that a cache that kept the right keys of the first
reading predicts the second one. Three pieces are cut from each of two public texts, at the beginning, one third and two
thirds.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import _options
from _texts import TEXTS, load_text
from pytriattn import Llama, TriAttentionStats

MODES = ("full", "per_layer_head", "per_head", "per_layer", "global", "random", "recent")


def pieces(llm: Llama, n_tokens: int) -> dict[str, list[int]]:
    """Return the texts, each twice in a row."""
    result = {}
    for name in TEXTS:
        text = load_text(name)
        for part in range(3):
            start = len(text) * part // 3
            tokens = llm.tokenize(text[start : start + 12 * n_tokens])[:n_tokens]
            assert len(tokens) == n_tokens
            result[f"{name}-{part}"] = tokens + tokens
    return result


def perplexities(llm: Llama, texts: dict[str, list[int]], skip: int) -> dict[str, float]:
    """Return the perplexity of each text after its first `skip` tokens."""
    return {
        name: float(np.exp(-np.mean(llm.logprobs(tokens)[skip:], dtype=np.float64))) for name, tokens in texts.items()
    }


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__)
    parser.add_argument(
        "--stats", help="a .triattention file; default: calibrated on the text that ships with the package"
    )
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument(
        "--tokens", type=int, default=1600, help="of each text, before it is doubled (default: %(default)s)"
    )
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    arguments = parser.parse_args()

    path = _options.model_path(arguments.model)
    stats = TriAttentionStats.load(arguments.stats) if arguments.stats else None
    figures: dict[str, dict[str, float]] = {}
    for mode in arguments.modes:
        options = {} if mode == "full" else {"budget": arguments.budget, "mode": mode, "triattn_stats": stats}
        with Llama(path, n_ctx=2 * arguments.tokens, **options) as llm:
            texts = pieces(llm, arguments.tokens)
            start = time.monotonic()
            figures[mode] = perplexities(llm, texts, arguments.budget)
            seconds = time.monotonic() - start
        if mode == arguments.modes[0]:
            print(f"{'perplexity':16s}" + "".join(f"{name:>15s}" for name in texts) + f"{'mean':>10s}")
        values = list(figures[mode].values())
        print(
            f"{mode:16s}"
            + "".join(f"{value:15.3f}" for value in values)
            + f"{np.mean(values):10.3f}   {seconds:.0f} s",
            flush=True,
        )

    means = {mode: float(np.mean(list(values.values()))) for mode, values in figures.items()}
    if "per_layer_head" in means:
        for other in ("global", "recent"):
            if other in means:
                print(f"per_layer_head / {other}: {means['per_layer_head'] / means[other]:.3f}")
    figures_of_all = {"model": str(path), "budget": arguments.budget, "perplexity": figures, "mean": means}
    _options.write_json(arguments.json, figures_of_all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
