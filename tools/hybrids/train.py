#!/usr/bin/env python3
"""Train one of the small models: ``python -m hybrids.train hybrid CHECKPOINT`` in the folder tools.

The same command goes on where an interrupted one stopped. Text and weights follow from the seed. The text grows from
256 to 2,048 tokens. It needs PyTorch: ``pip install --group hybrids``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hybrids.network import Network
from hybrids.shape import SHAPES
from hybrids.text import Mix, training_text

STAGES = ((0.4, 256, 12, 12), (0.6, 512, 6, 24), (0.95, 1024, 4, 40), (1.0, 2048, 2, 64))
"""Until this share of the steps: tokens of a text, texts of a step, most facts of a text."""
OTHER_WEIGHT = 0.1  # of tokens that the text does not tell before
RATES = (0.01, 3e-3)  # of Muon, which has the matrices inside the layers, and of AdamW, which has the rest
WARM_UP = 50
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


def schedule(step: int, n_steps: int) -> float:
    """Return the share of the learning rate at a step: a short rise, then level, then a straight fall to a fiftieth."""
    return min((step + 1) / WARM_UP, 1.0, max(0.02, 2 * (1 - step / n_steps)))


def make_optimizers(network: Network) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return the optimizers in the order of `RATES`."""
    inside = [weight for name, weight in network.named_parameters() if weight.dim() == 2 and name.startswith("blk.")]
    others = [weight for weight in network.parameters() if all(weight is not other for other in inside)]
    return torch.optim.Muon(inside, lr=RATES[0], weight_decay=0.02), torch.optim.AdamW(
        others, lr=RATES[1], betas=(0.9, 0.95), weight_decay=0.0
    )


def losses(network: Network, tokens: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Return the weighted loss, the mean loss in nats of tokens that can be known, and the share that is predicted."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(tokens[:, :-1]).float()
    target, known = tokens[:, 1:], known[:, 1:]
    each = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    weights = torch.where(known, 1.0, OTHER_WEIGHT)
    right = (logits.argmax(-1) == target)[known].float().mean()
    return (each * weights).sum() / weights.sum(), float(each[known].mean().detach()), float(right)


def save(
    path: Path,
    network: Network,
    optimizers: Sequence[torch.optim.Optimizer],
    made_with: dict[str, Any],
    step: int,
) -> None:
    """Write a checkpoint in one step, so that an interruption leaves the one before."""
    partial = path.with_suffix(".partial")
    states = [optimizer.state_dict() for optimizer in optimizers]
    state = {"weights": network.state_dict(), "optimizers": states, "step": step, **made_with}
    torch.save(state, partial)
    os.replace(partial, path)


def train(name: str, path: Path, n_steps: int, until: int, seed: int) -> None:
    """Train a model up to the step `until`, or go on with it.

    A line of JSON for each ten steps goes to the checkpoint's name with .jsonl.
    """
    torch.manual_seed(seed)
    network = Network(SHAPES[name])
    optimizers = make_optimizers(network)
    made_with = {"architecture": "qwen35", "shape": SHAPES[name].to_dict(), "n_steps": n_steps, "seed": seed}
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if {key: state[key] for key in made_with} != made_with:
            raise SystemExit(f"{path} was made with other settings; give another file")
        network.load_state_dict(state["weights"])
        for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        first = state["step"]
    start = time.monotonic()
    with path.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
        for step in range(first, until):
            for optimizer, highest in zip(optimizers, RATES, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = highest * schedule(step, n_steps)
            loss, known_loss, right = losses(network, *batch(seed, step, n_steps))
            network.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            if (step + 1) % 10 == 0:
                row = {"step": step + 1, "loss": loss.item(), "known": known_loss, "right": right}
                line = json.dumps({**row, "seconds": round(time.monotonic() - start, 1)})
                print(line, file=log, flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == until:
                save(path, network, optimizers, made_with, step + 1)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--until", type=int, help="stop after this step of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.model, arguments.checkpoint, arguments.steps, arguments.until or arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
