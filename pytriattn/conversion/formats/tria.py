"""The TRIA binary format (``.bin``), versions 1 and 2: every head of every layer, zeros for those that are absent."""

from __future__ import annotations

import math
import struct

import numpy as np

from pytriattn.conversion.formats.binary import MAGIC, ByteReader, bands_bytes, check_count, read_bands
from pytriattn.conversion.formats.foreign import MAX_BANDS, ForeignStats, HeadBands, check_head
from pytriattn.errors import StatsError

__all__ = ["has_tria_header", "read_tria", "write_tria"]

_HEADER = "7I2f28s"
_HEADER_BYTES = 64
_MAX_LAYERS = _MAX_HEADS = 4096


def has_tria_header(data: bytes) -> bool:
    """Tell whether a file with the common magic is TRIA and not of the llama.cpp forks.

    TRIA reserves 28 zero bytes where the forks have part of their header, the model's name and numbers. Damage there
    must not hide a file whose size is right for its counts.
    """
    if len(data) < _HEADER_BYTES:
        return False
    _, version, n_layer, n_head, _, _, n_bands, _, _, reserved = struct.unpack_from("<" + _HEADER, data)
    size = _HEADER_BYTES + (4 * n_layer if version == 2 else 0) + 16 * n_layer * n_head * n_bands
    return version in (1, 2) and (not any(reserved) or size == len(data))


def read_tria(data: bytes) -> ForeignStats:
    """Read the bytes of a TRIA file.

    Raises:
        StatsError: they are damaged, or of another version.
    """
    reader = ByteReader(data)
    magic, version, n_layer, n_head, n_head_kv, head_dim, n_bands, theta, scale, reserved = reader.numbers(_HEADER)
    if magic != MAGIC or version not in (1, 2):
        raise StatsError(f"it is no TRIA file of version 1 or 2 (magic {magic:#x}, version {version})")
    check_count("the number of layers", n_layer, 1, _MAX_LAYERS)
    check_count("the number of query heads", n_head, 1, _MAX_HEADS)
    check_count("the number of KV heads", n_head_kv, 1, n_head)
    check_count("the number of bands", n_bands, 1, MAX_BANDS)
    check_count("the head dimension", head_dim, 2 * n_bands, 2 * MAX_BANDS)
    if n_head % n_head_kv or any(reserved) or not (math.isfinite(theta) and theta > 0 and math.isfinite(scale)):
        raise StatsError("its header contradicts itself")
    # before anything is made for each head
    expected = (4 * n_layer if version == 2 else 0) + 16 * n_layer * n_head * n_bands
    if reader.left != expected:
        raise StatsError(f"its header tells of {expected + _HEADER_BYTES} bytes, but it has {len(data)}")
    if version == 2:
        reader.floats(n_layer)  # scales of the layers' budgets: a setting of that program, not a statistic
    heads: dict[tuple[int, int], HeadBands] = {}
    for layer in range(n_layer):
        for head in range(n_head):
            bands = check_head(layer, head, read_bands(reader, n_bands))
            if not bands.is_empty:
                heads[layer, head] = bands
    reader.finish()
    return ForeignStats(
        f"TRIA version {version}",
        heads,
        head_dim=head_dim,
        n_layer=n_layer,
        n_head=n_head,
        n_head_kv=n_head_kv,
        rope_theta=theta,
    )


def write_tria(stats: ForeignStats, attn_scale: float = 1.0) -> bytes:
    """Return the bytes of a TRIA file of version 1.

    Args:
        stats: statistics with all counts, and the same number of bands in all heads.
        attn_scale: the factor of RoPE on rotated dimensions.

    Raises:
        StatsError: a count is missing, or the heads differ in their bands.
    """
    counts = (stats.n_layer, stats.n_head, stats.n_head_kv, stats.head_dim)
    if len(stats.band_counts) != 1 or None in counts or stats.rope_theta is None:
        raise StatsError(f"TRIA has one number of bands for all heads, but these have {stats.band_counts}")
    n_bands = stats.band_counts[0]
    zeros = np.zeros(n_bands, np.float32)
    absent = HeadBands(zeros, zeros, zeros)
    parts = [struct.pack("<" + _HEADER, MAGIC, 1, *counts, n_bands, stats.rope_theta, attn_scale, bytes(28))]
    for layer in range(stats.n_layer or 0):
        parts += [bands_bytes(stats.heads.get((layer, head), absent)) for head in range(stats.n_head or 0)]
    return b"".join(parts)
