"""Statistics files of other programs, written without the package's own writers, from the description of their
formats.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x54524941

Heads = Mapping[tuple[int, int], np.ndarray]
"""(layer, head) -> float32 [3, F]: real and imaginary part of the centre, magnitude."""


def random_heads(which: Iterable[tuple[int, int]], n_bands: int, seed: int = 0) -> dict[tuple[int, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    heads = {}
    for key in which:
        centre = rng.normal(size=(2, n_bands))
        magnitude = np.hypot(*centre) * rng.uniform(1.0, 2.0, n_bands)
        heads[key] = np.concatenate([centre, magnitude[None]]).astype(np.float32)
    return heads


def _numbers(head: np.ndarray) -> bytes:
    concentration = np.hypot(head[0], head[1]) / np.maximum(head[2], 1e-30)
    return np.concatenate([head, concentration[None]]).astype("<f4").tobytes()


def _n_bands(heads: Heads) -> int:
    return next(iter(heads.values())).shape[1]


class Shape(NamedTuple):
    """The model that a foreign file says it is of."""

    head_dim: int = 32
    n_layer: int = 3
    n_head: int = 4
    n_head_kv: int = 2
    theta: float = 10000.0


def fork_bytes(
    heads: Heads,
    version: int = 1,
    *,
    style: int = 1,
    name: str = "a model",
    explicit: bool = True,
    **shape: Any,
) -> bytes:
    head_dim, n_layer, n_head, n_head_kv, theta = Shape(**shape)
    n_bands = _n_bands(heads)
    raw_name = name.encode() + b"\0"
    data = struct.pack("<6I", MAGIC, version, head_dim, n_layer, n_head, n_head_kv) + struct.pack("<d", theta)
    data += struct.pack("<4I", style, len(heads), n_bands, len(raw_name)) + raw_name
    omega = theta ** (-np.arange(n_bands) / n_bands)
    tables = np.concatenate([omega, np.ones(n_bands)]).astype("<f4").tobytes()
    if version == 2:
        data += tables
    if version == 3:
        data += struct.pack("<I", n_layer)
        for _ in range(n_layer):
            data += struct.pack("<8I", head_dim, 2 * n_bands, 0, n_head, n_head_kv, 0xFFFFFFFF, style, 2048)
            data += struct.pack("<d5f2I", theta, 1.0, 0.0, 1.0, 32.0, 1.0, n_bands, int(explicit))
            data += tables if explicit else b""
    return data + b"".join(struct.pack("<2I", *key) + _numbers(head) for key, head in heads.items())


def tria_bytes(heads: Heads, version: int = 1, **shape: Any) -> bytes:
    head_dim, n_layer, n_head, n_head_kv, theta = Shape(**shape)
    n_bands = _n_bands(heads)
    data = struct.pack("<7I2f28x", MAGIC, version, n_layer, n_head, n_head_kv, head_dim, n_bands, theta, 1.0)
    if version == 2:
        data += np.ones(n_layer, "<f4").tobytes()
    for layer in range(n_layer):
        for head in range(n_head):
            data += _numbers(heads[layer, head]) if (layer, head) in heads else bytes(16 * n_bands)
    return data


class _Storage:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class _Tensor:
    def __init__(self, storage: _Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        count = self.storage.count
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (self.storage, 0, (count,), (1,), False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return ("storage", sys.modules["torch"].FloatStorage, obj.key, "cpu", obj.count)
        return None


@contextmanager
def _names_of_torch() -> Iterator[None]:
    """Let Python's pickler believe that torch is there, as it writes names only of what it can import."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None: ...

    storage = type("FloatStorage", (), {"__module__": "torch"})
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    vars(torch).update(FloatStorage=storage, _utils=utils)
    vars(utils).update(_rebuild_tensor_v2=_rebuild_tensor_v2)
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def zip_bytes(pickled: bytes, storages: Iterable[bytes] = (), *, compress: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("name/data.pkl", pickled)
        archive.writestr("name/byteorder", b"little")
        for number, content in enumerate(storages):
            archive.writestr(f"name/data/{number}", content)
        archive.writestr("name/version", b"3\n")
    return stream.getvalue()


def pt_bytes(heads: Heads, *, protocol: int = 2, compress: bool = False, **metadata: object) -> bytes:
    storages: list[bytes] = []
    stats: dict[str, dict[str, _Tensor]] = {}
    for (layer, head), values in heads.items():
        entry = stats.setdefault(f"layer{layer:02d}_head{head:02d}", {})
        for name, part in zip(("q_mean_real", "q_mean_imag", "q_abs_mean"), values, strict=True):
            entry[name] = _Tensor(_Storage(str(len(storages)), len(part)))
            storages.append(part.astype("<f4").tobytes())
    sampled = [list(key) for key in heads]
    content = {"metadata": {"rope_style": "half", "sampled_heads": sampled, **metadata}, "stats": stats}
    stream = io.BytesIO()
    with _names_of_torch():
        _Pickler(stream, protocol).dump(content)
    return zip_bytes(stream.getvalue(), storages, compress=compress)
