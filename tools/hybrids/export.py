#!/usr/bin/env python3
"""Write a trained model as a GGUF file: ``python -m hybrids.export CHECKPOINT MODEL.gguf`` in the folder tools.

    python -m hybrids.export hybrid.pt hybrid.gguf    F32
    python -m hybrids.export hybrid.pt hybrid.gguf --type Q8_0

It needs PyTorch, since a checkpoint is PyTorch's.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hybrids.layout import ARCHITECTURE, ExportError, check_tensors, write_model
from hybrids.shape import Shape


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        shape: sizes of the model.
        weights: PyTorch's tensors by their names in `Network`.
        step: training steps done.
    """

    shape: Shape
    weights: dict[str, torch.Tensor]
    step: int


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of `hybrids.train`.

    Raises:
        ExportError: the file is cut off or of another kind, or a key is missing or has a value of another model.
    """
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise ExportError(f"{path} is no checkpoint, or it is cut off: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise ExportError(f"{path} holds a {type(state).__name__}, not a checkpoint of hybrids.train")
    for key in ("architecture", "shape", "weights", "step"):
        if key not in state:
            raise ExportError(f"{path} has no key {key!r}; it is no checkpoint of hybrids.train")
    if state["architecture"] != ARCHITECTURE:
        raise ExportError(f"architecture is {state['architecture']!r}, only {ARCHITECTURE!r} can be exported")
    return Checkpoint(_shape_of(state["shape"]), state["weights"], int(state["step"]))


def _shape_of(sizes: dict[str, Any]) -> Shape:
    names = {field.name for field in fields(Shape)}
    for name in names.symmetric_difference(sizes):
        raise ExportError(f"shape.{name} is {'missing' if name in names else 'not known'}")
    return Shape(**sizes)


def file_tensors(weights: dict[str, torch.Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    """Return a model's tensors as a GGUF file has them."""
    found = {}
    for name, weight in weights.items():
        values = weight.detach().float().numpy()
        key = name.replace(".mixer.", ".")
        if key.endswith("ssm_conv1d.weight"):
            values = values.squeeze(1)
        elif key.endswith("ssm_a"):
            values = -np.exp(values)
        elif key.endswith("ssm_dt"):
            key += ".bias"
        found[key] = values
    return found


def main() -> int:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--type", choices=("F32", "F16", "Q8_0"), default="F32")
    arguments = parser.parse_args()
    try:
        checkpoint = read_checkpoint(arguments.checkpoint)
        tensors = file_tensors(checkpoint.weights)
        check_tensors(checkpoint.shape, tensors)
        write_model(arguments.model, checkpoint.shape, tensors, arguments.type)
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.model}: {arguments.model.stat().st_size:,} bytes, {checkpoint.step:,} steps of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
