"""Statistics and settings for the tests of preflight."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from pytriattn import TriAttentionStats
from pytriattn._native import core
from pytriattn.gguf.identity import model_identity
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings
from pytriattn.preflight.settings import PreflightSettings
from pytriattn.stats.layer_stats import LayerStats


def stats_of(path: pathlib.Path) -> TriAttentionStats:
    """Measure a tiny model, which has no tokenizer, on random tokens."""
    model = core.Model(str(path))
    tokens = np.random.default_rng(3).integers(0, 250, 128, dtype=np.int32)
    native = core.calibrate(model, tokens, n_ctx=128, n_ubatch=128, n_threads=1)
    layers = tuple(LayerStats.from_native(layer) for layer in native.layers)
    return TriAttentionStats(layers, model_identity(path), native.n_tokens, "00" * 32)


def settings_of(
    budget: int, *, allow_untested: bool = False, memory: int | None = None, **options: Any
) -> PreflightSettings:
    """Return settings whose `options` are fields of `EvictionSettings` or of `CacheOptions`."""
    fields = EvictionSettings.__dataclass_fields__
    eviction = {name: options.pop(name) for name in list(options) if name in fields}
    return PreflightSettings(
        CacheOptions(eviction=EvictionSettings(budget, **eviction), **options), allow_untested, memory
    )
