"""What is lost of rows of keys and values in a type of caches, and in two variants of three bits that others use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pytriattn._native import core

__all__ = ["VARIANTS", "hadamard", "relative_error", "rotate_pieces", "stored"]

Rows = npt.NDArray[np.float32]
LEVELS = np.array([0.245094, 0.756005, 1.343909, 2.151946], dtype=np.float32)
CUTS = (LEVELS[1:] + LEVELS[:-1]) / 2


def hadamard(n: int) -> Rows:
    """Return the orthonormal Hadamard matrix of a power of 2."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    orthonormal: Rows = (matrix / np.sqrt(n)).astype(np.float32)
    return orthonormal


def rotate_pieces(rows: Rows, size: int) -> Rows:
    """Multiply pieces of `size` values by a Hadamard matrix, as llama.cpp does before it stores quantised rows."""
    rotated: Rows = (rows.reshape(-1, size) @ hadamard(size)).reshape(rows.shape)
    return rotated


def relative_error(rows: Rows, left: Rows) -> float:
    """Return the squared error over the squares of the rows."""
    return float(((rows - left) ** 2).sum(dtype=np.float64) / (rows**2).sum(dtype=np.float64))


def stored(rows: Rows, kind: str) -> Rows:
    """Return what is left of rows [n, width] in a type of caches: what ggml's own code makes of them."""
    return core.testing.round_rows(np.ascontiguousarray(rows), kind, rows.shape[1])


def _by_norm(rows: Rows) -> Rows:
    """Store rows in three bits, with the length of each row or of 128 values as its scale (16 bits)."""
    pieces = rows.reshape(-1, min(rows.shape[1], 128))
    scale = np.sqrt((pieces**2).mean(1, keepdims=True)).astype(np.float16).astype(np.float32)
    level = LEVELS[np.searchsorted(CUTS, (np.abs(pieces) / np.maximum(scale, 1e-20)).reshape(-1))]
    left: Rows = (np.sign(pieces) * level.reshape(pieces.shape) * scale).reshape(rows.shape)
    return left


def turbo3(rows: Rows) -> Rows:
    """Store rows after random signs and a Hadamard matrix over the whole row, with their length as the scale."""
    signs = np.random.default_rng(1).choice(np.array([-1, 1], dtype=np.float32), rows.shape[1])
    matrix = hadamard(rows.shape[1])
    left: Rows = (_by_norm((rows * signs) @ matrix) @ matrix) * signs
    return left


def planar3(rows: Rows) -> Rows:
    """Store rows after turning each pair of values by an angle of its own, with their length as the scale."""
    turn = np.exp(1j * np.random.default_rng(1).uniform(0, 2 * np.pi, rows.shape[1] // 2)).astype(np.complex64)
    turned = (rows[:, 0::2] + 1j * rows[:, 1::2]) * turn
    flat = np.stack([turned.real, turned.imag], axis=-1).reshape(rows.shape).astype(np.float32)
    back = _by_norm(flat).reshape(*turned.shape, 2)
    complex_rows = (back[..., 0] + 1j * back[..., 1]) / turn
    return np.stack([complex_rows.real, complex_rows.imag], axis=-1).reshape(rows.shape).astype(np.float32)


VARIANTS: dict[str, Callable[[Rows], Rows]] = {"turbo3": turbo3, "planar3": planar3}
"""What they take are rows that nothing has rotated."""
