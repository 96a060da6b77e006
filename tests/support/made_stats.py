"""Statistics that are not as calibration makes them."""

from __future__ import annotations

from dataclasses import replace

from pytriattn import TriAttentionStats


def without_fit(stats: TriAttentionStats) -> TriAttentionStats:
    """Return statistics as files before version 3 have them."""
    return replace(stats, layers=tuple(replace(layer, fit=None) for layer in stats.layers), fit_r2=None)
