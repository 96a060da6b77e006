"""LoRA adapters of a loaded model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from pytriattn._native import core
from pytriattn.gguf.identity import check_model_file

__all__ = ["Adapters"]

LoraScales = Mapping[str | os.PathLike[str], float]
"""Adapter file -> how strongly it counts."""


class Adapters:
    """Loads each adapter once and keeps those that are in use.

    Attributes:
        scales: adapter file -> how strongly it counts; those in use.
    """

    def __init__(self, model: core.Model) -> None:
        """Start without adapters for a model."""
        self.scales: dict[Path, float] = {}
        self._model = model
        self._loaded: dict[Path, core.Lora] = {}
        self._digests: dict[Path, str] = {}

    def apply(self, context: core.Context, scales: LoraScales) -> None:
        """Use these adapters in a context, and no others.

        Raises:
            ModelLoadError: a file is missing, damaged, or an adapter of another model; then nothing has changed.
        """
        wanted = {check_model_file(path).resolve(): float(scale) for path, scale in scales.items()}
        for path in wanted:
            if path not in self._loaded:
                self._loaded[path] = core.Lora(self._model, path)
                self._digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        core.set_loras(context, [core.ScaledLora(self._loaded[path], scale) for path, scale in wanted.items()])
        self.scales = wanted

    @property
    def in_use(self) -> list[core.ScaledLora]:
        """The adapters in use, each with its scale."""
        return [core.ScaledLora(self._loaded[path], scale) for path, scale in self.scales.items()]

    def describe_state(self) -> dict[str, float]:
        """Return what a saved state is tied to: the hash of each adapter's file -> its scale."""
        return {self._digests[path]: scale for path, scale in self.scales.items() if scale != 0}
