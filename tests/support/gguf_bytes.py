"""GGUF files as bytes, valid ones and such as no writer would make, for tests of what reads them."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np

Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[str]
ALIGNMENT = 32
FACTORS = {"rope_freqs.weight": np.linspace(1.0, 8.0, 16)}
"""For `model_keys`, whose heads rotate 32 dimensions."""


def text(value: str | bytes) -> bytes:
    """Write a string."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def typed(value: Value) -> bytes:
    """Write a value after the number of its type."""
    kind, data = _encoded(value)
    return struct.pack("<I", kind) + data


def _encoded(value: Value) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<B", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if 0 <= value < 1 << 32 else (11, struct.pack("<q", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, text(value)
    items = [_encoded(item) for item in value]
    kind = items[0][0] if items else 4
    return 9, struct.pack("<IQ", kind, len(items)) + b"".join(data for _, data in items)


def gguf_bytes(
    architecture: str = "",
    keys: Mapping[str, Value] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    bare_keys: Mapping[str, Value] | None = None,
    version: int = 3,
) -> bytes:
    """Return a file.

    Args:
        architecture: ``general.architecture``, and what `keys` begin with; empty: neither.
        keys: of the architecture.
        tensors: float32, shapes in numpy's order.
        bare_keys: keys without the architecture in front.
        version: of the format.
    """
    values: dict[str, Value] = {"general.architecture": architecture} if architecture else {}
    values |= {f"{architecture}.{key}": value for key, value in (keys or {}).items()} | dict(bare_keys or {})
    tensors = tensors or {}
    head = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(values))]
    head += [text(key) + typed(value) for key, value in values.items()]
    data = b""
    for name, array in tensors.items():
        head.append(text(name) + struct.pack(f"<I{array.ndim}Q", array.ndim, *array.shape[::-1]))
        head.append(struct.pack("<IQ", 0, len(data)))
        data += array.astype("<f4").tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    start = b"".join(head)
    return start + (bytes(-len(start) % ALIGNMENT) + data if tensors else b"")


def model_keys(**others: Value) -> dict[str, Value]:
    """Return the keys of a small model, with `others` in place of or besides them; ``__`` stands for a dot."""
    keys: dict[str, Value] = {
        "block_count": 4,
        "context_length": 2048,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "vocab_size": 256,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 32,
        "rope.freq_base": 10000.0,
    }
    return keys | {key.replace("__", "."): value for key, value in others.items()}


def write_split(folder: pathlib.Path, stem: str, n_parts: int, keys: Mapping[str, Value]) -> list[pathlib.Path]:
    """Write a llama model in parts, each of which holds one small tensor; return their paths."""
    paths = []
    for number in range(n_parts):
        split: dict[str, Value] = {"split.no": number, "split.count": n_parts, "split.tensors.count": n_parts}
        data = gguf_bytes(
            "llama" if number == 0 else "",
            keys if number == 0 else None,
            {f"blk.{number}.weight": np.full((2, 4), float(number))},
            bare_keys=split,
        )
        path = folder / f"{stem}-{number + 1:05}-of-{n_parts:05}.gguf"
        path.write_bytes(data)
        paths.append(path)
    return paths
