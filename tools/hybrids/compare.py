#!/usr/bin/env python3
"""Hold llama.cpp's logits against PyTorch's: ``python -m hybrids.compare MODEL.gguf LOGITS.npz`` in the folder tools.

The cache is F32 and flash attention is off, so that the difference is one of the architecture and not of rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pytriattn import Llama


def differences(model: Path, logits: Path) -> tuple[float, float]:
    """Return the largest difference of a logit: reading many tokens at once, and one by one."""
    wanted = np.load(logits)
    tokens = wanted["tokens"]
    with Llama(model, n_ctx=len(tokens), n_threads=1, type_k="f32", type_v="f32", flash_attn=False) as llm:
        together = llm.read_logits(tokens)
        llm.reset()
        one_by_one = np.concatenate([llm.read_logits(tokens[i : i + 1]) for i in range(len(tokens))])
    found = [float(np.abs(rows - wanted["logits"]).max()) for rows in (together, one_by_one)]
    return found[0], found[1]


def main() -> None:
    """Read the command line and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("logits", type=Path)
    arguments = parser.parse_args()
    together, one_by_one = differences(arguments.model, arguments.logits)
    largest = float(np.abs(np.load(arguments.logits)["logits"]).max())
    print(f"largest logit {largest:.1f}; largest difference {together:.1e} at once, {one_by_one:.1e} one by one")


if __name__ == "__main__":
    main()
