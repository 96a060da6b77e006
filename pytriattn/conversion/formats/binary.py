"""Reading numbers from bytes without running over their end."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from pytriattn.conversion.formats.foreign import MAX_BANDS, Floats, HeadBands
from pytriattn.errors import StatsError

__all__ = ["MAGIC", "ByteReader", "bands_bytes", "check_count", "read_bands"]

MAGIC = 0x54524941
"""Begins the files of the llama.cpp forks and those called TRIA."""


class ByteReader:
    """Takes little-endian numbers from `data`, one after the other.

    Every method raises `StatsError` where the bytes end too early; nothing is allocated before that is checked.
    """

    def __init__(self, data: bytes) -> None:
        """Start at the first byte."""
        self._data = data
        self.position = 0

    @property
    def left(self) -> int:
        """Return how many bytes have not been read."""
        return len(self._data) - self.position

    def skip(self, n_bytes: int) -> int:
        """Pass over `n_bytes` and return where they begin, in bytes from the start.

        Raises:
            StatsError: the data end before.
        """
        if n_bytes > self.left:
            raise StatsError(f"it ends at byte {len(self._data)}, but {n_bytes - self.left} more are needed")
        begin, self.position = self.position, self.position + n_bytes
        return begin

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        """Return numbers of the kinds that `struct` names, without padding between them."""
        layout = struct.Struct("<" + kinds)
        return layout.unpack_from(self._data, self.skip(layout.size))

    def raw(self, n_bytes: int) -> bytes:
        """Return a copy of the next bytes."""
        begin = self.skip(n_bytes)
        return self._data[begin : begin + n_bytes]

    def floats(self, count: int) -> Floats:
        """Return float32 [count], a view of the bytes."""
        return np.frombuffer(self._data, np.dtype("<f4"), count, self.skip(4 * count))

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            StatsError: there are more bytes.
        """
        if self.left:
            raise StatsError(f"{self.left} bytes follow its end")


def check_count(name: str, value: int, low: int, high: int) -> int:
    """Return a count that a file holds.

    Raises:
        StatsError: it is outside `low` … `high`.
    """
    if not low <= value <= high:
        raise StatsError(f"{name} is {value}, which cannot be (it must be from {low} to {high})")
    return value


def read_bands(reader: ByteReader, n_bands: int) -> HeadBands:
    """Read real part, imaginary part, magnitude and (ignored, since it follows from them) R of `n_bands` bands."""
    check_count("the number of bands", n_bands, 1, MAX_BANDS)
    values = reader.floats(4 * n_bands).reshape(4, n_bands)
    return HeadBands(values[0], values[1], values[2])


def bands_bytes(bands: HeadBands) -> bytes:
    """Return the bytes that `read_bands` reads."""
    return b"".join(part.astype("<f4").tobytes() for part in (*bands, bands.concentration()))
