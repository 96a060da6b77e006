#!/usr/bin/env python3
"""Train one of the small models: ``python -m hybrids.train hybrid CHECKPOINT`` in the folder tools.

The same command goes on where an interrupted one stopped. Text and weights follow from the seed. The text grows from 256
to 2,048 tokens. It needs PyTorch: ``pip install --group hybrids``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hybrids.network import Network
from hybrids.shape import SHAPES
from hybrids.text import Mix, training_text

STAGES = ((0.4, 256, 32, 10), (0.65, 512, 16, 20), (0.9, 1024, 8, 40), (1.0, 2048, 4, 64))
"""Until this share of the steps: tokens of a text, texts of a step, most facts of a text."""
OTHER_WEIGHT = 0.1  # of tokens that the text does not tell before
RATE, LEAST_RATE, WARM_UP = 3e-3, 1e-4, 100
SAVE_EVERY = 100


def batch(seed: int, step: int, n_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the texts of a step, int64 [B, T], and which of their tokens can be known, bool [B, T]."""
    rng = np.random.default_rng([seed, step])
    _, n_tokens, n_texts, most = next(stage for stage in STAGES if step < stage[0] * n_steps or stage is STAGES[-1])
    texts = []
    for _ in range(n_texts):
        n_facts = int(rng.integers(most // 4, most + 1))
        texts.append(training_text(rng, Mix(n_tokens, n_facts, n_copies=1 + n_tokens // 512)))
    tokens, known = zip(*texts, strict=True)
    return torch.from_numpy(np.stack(tokens).astype(np.int64)), torch.from_numpy(np.stack(known))


def rate(step: int, n_steps: int) -> float:
    """Return the learning rate of a step: a short rise, then half a cosine."""
    done = step / n_steps
    return min(1.0, (step + 1) / WARM_UP) * (LEAST_RATE + (RATE - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def losses(network: Network, tokens: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Return the weighted loss, the mean loss in nats of tokens that can be known, and the share that is predicted."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(tokens[:, :-1]).float()
    target, known = tokens[:, 1:], known[:, 1:]
    each = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    weights = torch.where(known, 1.0, OTHER_WEIGHT)
    right = (logits.argmax(-1) == target)[known].float().mean()
    return (each * weights).sum() / weights.sum(), float(each[known].mean().detach()), float(right)


def save(path: Path, network: Network, optimizer: torch.optim.Optimizer, made_with: dict[str, Any], step: int) -> None:
    """Write a checkpoint in one step, so that an interruption leaves the one before."""
    partial = path.with_suffix(".partial")
    state = {"weights": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, **made_with}
    torch.save(state, partial)
    os.replace(partial, path)


def train(name: str, path: Path, n_steps: int, seed: int) -> None:
    """Train a model, or go on with it; a line of JSON for each ten steps goes to the checkpoint's name with .jsonl."""
    torch.manual_seed(seed)
    network = Network(SHAPES[name])
    groups = [
        {"params": [p for p in network.parameters() if p.dim() >= 2], "weight_decay": 0.05},
        {"params": [p for p in network.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    made_with = {"architecture": "qwen35", "shape": SHAPES[name].to_dict(), "n_steps": n_steps, "seed": seed}
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if {key: state[key] for key in made_with} != made_with:
            raise SystemExit(f"{path} was made with other settings; give another file")
        network.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    start = time.monotonic()
    with path.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
        for step in range(first, n_steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, n_steps)
            loss, known_loss, right = losses(network, *batch(seed, step, n_steps))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % 10 == 0:
                row = {"step": step + 1, "loss": loss.item(), "known": known_loss, "right": right}
                line = json.dumps({**row, "seconds": round(time.monotonic() - start, 1)})
                print(line, file=log, flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == n_steps:
                save(path, network, optimizer, made_with, step + 1)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.model, arguments.checkpoint, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
