"""The type KV3 in numpy, written from its description (vendor/llama.cpp/kv3/kv3.h) and not from its code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "BLOCK_BYTES", "decode", "feedback_bytes", "nearest", "read_feedback", "scales"]

BLOCK, BLOCK_BYTES = 64, 25
LEVELS = np.array([10, 31, 55, 88]) / 40.92527


def scales() -> npt.NDArray[np.float64]:
    """Return what each byte of scale stands for: the upper byte of a half float that has lost its sign."""
    return (np.arange(256, dtype=np.uint16) << 7).view(np.float16).astype(np.float64)


def decode(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the values of rows of bytes [..., n * 25]: [..., n * 64]."""
    blocks = rows.reshape(-1, BLOCK_BYTES)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    index = (blocks[:, None, :16] >> shifts & 3).reshape(-1, BLOCK)
    negative = np.unpackbits(blocks[:, 16:24], axis=1, bitorder="little").astype(bool)
    values = np.where(negative, -LEVELS[index], LEVELS[index]) * scales()[blocks[:, 24], None]
    return values.reshape(*rows.shape[:-1], -1)


def nearest(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return what is left of rows [..., n * 64] that were stored."""
    blocks = rows.reshape(-1, BLOCK).astype(np.float64)
    size = np.abs(blocks)
    scale = np.sqrt((size**2).mean(1))
    for _ in range(2):  # by least squares
        level = _level(size, scale)
        scale = (size * level).sum(1) / (level**2).sum(1)
    known = scales()[: 31 << 3]
    above = np.searchsorted(known, scale, side="right")
    best, least = np.zeros_like(blocks), (blocks**2).sum(1)
    for byte in range(-3, 3):  # around it: the error has many minima
        index = above + byte
        candidate = known[np.clip(index, 0, len(known) - 1)]
        level = _level(size, candidate) * candidate[:, None]
        error = ((size - level) ** 2).sum(1)
        better = (error < least) & (index >= 1) & (index < len(known))
        best[better], least[better] = level[better], error[better]
    return (np.where(blocks < 0, -best, best)).reshape(rows.shape)


def _level(size: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    cuts = (LEVELS[1:] + LEVELS[:-1]) / 2
    found: npt.NDArray[np.float64] = LEVELS[(size[..., None] > cuts * scale[:, None, None]).sum(-1)]
    return found


def feedback_bytes(weight: npt.NDArray[Any], back: npt.NDArray[Any]) -> bytes:
    """Return the feedback of a head: weights [d], and back [d, d] of which what lies above the diagonal counts."""
    d = len(weight)
    above = np.triu(back, 1)
    unit = np.abs(above).max() / 127
    numbers = np.round(above / unit if unit > 0 else above).astype(np.int8)
    of_values = b"".join(numbers[i, i + 1 :].tobytes() for i in range(d))
    return weight.astype(np.float32).tobytes() + np.float32(unit).tobytes() + of_values


def read_feedback(data: bytes, d: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what `feedback_bytes` was given."""
    floats = np.frombuffer(data, np.float32, d + 1).astype(np.float64)
    back = np.zeros((d, d))
    back[np.triu_indices(d, 1)] = np.frombuffer(data, np.int8, d * (d - 1) // 2, 4 * (d + 1)) * floats[d]
    return floats[:d], back
