"""Statistics files of other programs, as they are: nothing here knows a model."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from pytriattn.conversion.formats.binary import MAGIC
from pytriattn.conversion.formats.foreign import ForeignLayer, ForeignStats, HeadBands
from pytriattn.conversion.formats.fork import read_fork, write_fork
from pytriattn.conversion.formats.published_pt import read_pt, write_pt
from pytriattn.conversion.formats.tria import has_tria_header, read_tria, write_tria
from pytriattn.errors import StatsError

__all__ = [
    "ForeignLayer",
    "ForeignStats",
    "HeadBands",
    "parse_foreign",
    "read_foreign",
    "write_fork",
    "write_pt",
    "write_tria",
]

MAX_FILE_BYTES = 1 << 28
"""Larger than any file of statistics: a model of 128 layers with 128 heads of 512 dimensions has a quarter of it."""


def parse_foreign(data: bytes) -> ForeignStats:
    """Read the bytes of a foreign file; they tell which format it is.

    Raises:
        StatsError: it is none of the known formats, damaged, or without statistics.
    """
    if data[:4] == struct.pack("<I", MAGIC):
        stats = read_tria(data) if has_tria_header(data) else read_fork(data)
    elif data[:2] == b"PK":
        stats = read_pt(data)
    elif data[:1] == b"\x80":
        raise StatsError(
            "it is a bare pickle or a torch file from before version 1.6; save it again with a newer torch"
        )
    else:
        raise StatsError(f"it is none of the known formats (it starts with {data[:4]!r})")
    if not stats.heads:
        raise StatsError("it has no statistics: all of its numbers are zero")
    return stats


def read_foreign(path: str | os.PathLike[str]) -> ForeignStats:
    """Read a foreign file of statistics: TRIA, of a llama.cpp fork, or the ``.pt`` of the published code.

    Raises:
        StatsError: it cannot be read, is none of them, or damaged; the message names the file.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StatsError(f"the statistics '{file}' cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise StatsError(f"the statistics '{file}' are larger than any such file ({MAX_FILE_BYTES} bytes)")
    try:
        return parse_foreign(data)
    except StatsError as error:
        raise StatsError(f"the statistics '{file}' cannot be used: {error}") from error
