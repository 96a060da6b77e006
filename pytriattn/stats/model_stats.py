"""The statistics of a model's queries that TriAttention scores with."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.sidecar import SidecarContents, read_sidecar, write_sidecar

__all__ = ["TriAttentionStats"]


@dataclass(frozen=True, eq=False)
class TriAttentionStats:
    """Statistics of all layers with full attention, and where they come from.

    Attributes:
        layers: the statistics of each layer, ascending by layer index.
        model: the model they were measured on; they fit no other.
        n_tokens: how many tokens were read.
        corpus_sha256: SHA-256 of the text's UTF-8 bytes.
        fit_r2: R^2 of the fit for ln of attention on held-out keys, the mean over heads; None: not fitted.
    """

    layers: tuple[LayerStats, ...]
    model: ModelIdentity
    n_tokens: int
    corpus_sha256: str
    fit_r2: float | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether there are fitted weights, which mode ``fitted`` needs."""
        return all(layer.fit is not None for layer in self.layers)

    def concentration(self) -> dict[int, npt.NDArray[np.float32]]:
        """Return the concentration R of each layer: layer index -> float32 [n_head, n_bands]."""
        return {layer.layer: layer.concentration() for layer in self.layers}

    def mean_concentration(self) -> float:
        """Return the mean of R over all layers, heads and bands."""
        return float(np.mean(np.concatenate([r.ravel() for r in self.concentration().values()])))

    def check_model(self, model: ModelIdentity, source: str = "these statistics") -> None:
        """Check that these statistics belong to `model`.

        Raises:
            StatsError: they were measured on another one; the message names both.
        """
        if self.model.sha256 != model.sha256:
            raise StatsError(
                f"{source} were calibrated on {self.model}, but the model is {model}; "
                "run pytriattn-calibrate for this model file"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.triattention`` file (GGUF). Atomic, and the same statistics give the same bytes.

        Raises:
            OSError: the file cannot be written; what was there before is still there.
        """
        write_sidecar(SidecarContents(self.layers, self.model, self.n_tokens, self.corpus_sha256, self.fit_r2), path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> TriAttentionStats:
        """Read a ``.triattention`` file.

        Raises:
            StatsError: it is missing, damaged, or of another version.
        """
        return TriAttentionStats(*read_sidecar(path))

    def to_native(self) -> core.Stats:
        """Return the same statistics as the C++ engine takes them."""
        return core.Stats([layer.to_native() for layer in self.layers], self.n_tokens)
