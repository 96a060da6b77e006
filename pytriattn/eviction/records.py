"""Records of evictions for the program that asked for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn._native import core

__all__ = ["Eviction", "EvictionReporter"]


@dataclass(frozen=True, eq=False)
class Eviction:
    """One eviction.

    Attributes:
        sequence: the index of the sequence; 0 outside of a batch.
        position: the position of the next token.
        n_before: keys that each head held.
        n_after: keys that each head holds now.
        evicted: layer -> for each KV head the positions of the tokens that were evicted, int32
            [n_before - n_after], ascending.
    """

    sequence: int
    position: int
    n_before: int
    n_after: int
    evicted: dict[int, list[npt.NDArray[np.int32]]]


class EvictionReporter:
    """Calls back with the evictions of a context, after each step in which there were any."""

    def __init__(self, callback: Callable[[Eviction], object], context: core.Context) -> None:
        """Let the context record its evictions from now on."""
        self._callback = callback
        self._layers = [layer.layer for layer in context.layers]
        context.record_evictions(True)

    def report(self, context: core.Context) -> None:
        """Call back with each eviction since the last call."""
        for record in context.take_evictions():
            evicted = dict(zip(self._layers, record.evicted, strict=True))
            self._callback(Eviction(record.seq, record.position, record.n_before, record.n_after, evicted))
