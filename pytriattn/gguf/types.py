"""Numbers of the GGUF format: types of values, and types of tensors with the bytes of their blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ARRAY", "BOOL", "STRING", "TENSOR_TYPES", "VALUE_TYPES", "block_size", "row_bytes"]

VALUE_TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("<u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
"""What numbers of a type look like in the file."""
BOOL, STRING, ARRAY = 7, 8, 9

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_K", 256, 84),
    11: ("q3_K", 256, 110),
    12: ("q4_K", 256, 144),
    13: ("q5_K", 256, 176),
    14: ("q6_K", 256, 210),
    15: ("q8_K", 256, 292),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
    42: ("q2_0", 64, 18),
    63: ("kv3", 64, 25),
}
"""By number: ggml's name, the values of a block, and its bytes. Tensors of newer types are not measured. `kv3` is our
own: no file has it."""

_BLOCKS = {name: (n_values, n_bytes) for name, n_values, n_bytes in TENSOR_TYPES.values()}


def block_size(type_name: str) -> int:
    """Return how many values a block of the type has."""
    return _BLOCKS[type_name][0]


def row_bytes(type_name: str, n_values: int) -> int:
    """Return the bytes of a row of `n_values`.

    Raises:
        ValueError: whole blocks of the type do not fill it.
    """
    block, n_bytes = _BLOCKS[type_name]
    if n_values % block != 0:
        raise ValueError(f"{type_name} stores blocks of {block} values, which {n_values} cannot be divided into")
    return n_values // block * n_bytes
