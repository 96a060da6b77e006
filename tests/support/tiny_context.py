"""A context of the compiled module over a tiny model, and the types of what the fixtures give."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pytriattn._native import core

Tokens = npt.NDArray[np.int32]
Tiny = Callable[[str], pathlib.Path]
"""The fixture ``tiny``: the path of a tiny model, by its name in `models.registry.ARCHITECTURES`."""


class TinyContext:
    """A core context over a tiny model, calibrated on random tokens if its mode needs statistics."""

    def __init__(
        self,
        path: pathlib.Path,
        *,
        mode: str = "per_layer_head",
        budget: int | None = 96,
        interval: int = 32,
        window: int = 16,
        seed: int = 0,
        **options: object,
    ) -> None:
        self.model = core.Model(str(path))
        eviction = stats = None
        if budget is not None:
            eviction = core.EvictionConfig(mode=mode, budget=budget, interval=interval, window=window, seed=seed)
            if eviction.needs_scores:
                tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
                stats = core.calibrate(self.model, tokens, n_ctx=256, n_ubatch=128, n_threads=2)
        settings: dict[str, object] = {"n_ctx": 4096, "n_threads": 2, **options}
        self.context = core.Context(self.model, core.DecoderParams(eviction=eviction, **settings), stats)
