#!/usr/bin/env python3
"""Write what PyTorch computes of a model file: ``python -m hybrids.logits MODEL.gguf LOGITS.npz`` in the folder tools.

The tensors are those of the file, so that names, layout and values of an export are checked with it. The ``.npz`` file
has ``tokens`` int32 [n] and ``logits`` float32 [n, n_vocab], the logits after each token. ``python -m hybrids.compare``
holds llama.cpp against them. It needs PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch

from hybrids.layout import read_shape, read_tensors
from hybrids.network import Network
from hybrids.shape import Shape
from hybrids.text import Mix, training_text

TEXT_SEED = 20


def load_network(shape: Shape, tensors: dict[str, npt.NDArray[np.float32]]) -> Network:
    """Return a network with the tensors of a file."""
    network = Network(shape)
    weights = {}
    for name, old in network.state_dict().items():
        key = name.replace(".mixer.", ".")
        values = tensors[f"{key}.bias" if key.endswith("ssm_dt") else key]
        if key.endswith("ssm_a"):
            values = np.log(-values)
        weights[name] = torch.from_numpy(values.copy()).view_as(old)
    network.load_state_dict(weights)
    return network


def compute(path: Path, n_tokens: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the tokens of a text, and the logits after each."""
    reader = gguf.GGUFReader(path)
    shape = read_shape(reader)
    network = load_network(shape, read_tensors(reader, shape))
    text, _ = training_text(np.random.default_rng(TEXT_SEED), Mix(n_tokens, n_tokens // 32, 1))
    tokens = text.astype(np.int32)
    with torch.no_grad():
        logits = network(torch.from_numpy(tokens.astype(np.int64))[None])[0]
    return tokens, logits.numpy()


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("logits", type=Path)
    parser.add_argument("--tokens", type=int, default=1024)
    arguments = parser.parse_args()
    tokens, logits = compute(arguments.model, arguments.tokens)
    np.savez_compressed(arguments.logits, tokens=tokens, logits=logits)


if __name__ == "__main__":
    main()
