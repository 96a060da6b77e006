"""The contents of a GGUF file before its weights: keys and values, and the names, shapes and types of tensors.

Reading any file takes less than a second, even if it is damaged. Vocabularies are counted and skipped. Each length is
compared with the size of the file first. What no model has (`reader.MAX_STRINGS`, `reader.MAX_BYTES`) is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn.errors import ModelLoadError
from pytriattn.gguf.reader import GGUFReader, Part, SkippedArray, TensorInfo, Value
from pytriattn.gguf.source import open_source

__all__ = ["GGUFMetadata", "SkippedArray", "TensorInfo", "Value", "read_metadata"]

MAX_TENSOR_VALUES = 1 << 20
"""What `GGUFMetadata.tensor_values` reads at most."""
MAX_PARTS = 4096

# an address may end in a query
_PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf(?P<query>\?[^/]*)?$", re.DOTALL)


@dataclass(frozen=True)
class GGUFMetadata:
    """Keys and tensors of a model.

    Attributes:
        path: the file (the first one of a split model), or its address.
        version: the version of the format, 2 or 3.
        values: the values by key; of a split model, those of the first part.
        tensors: the tensors of all parts by name.
        parts: all files of the model.
        file_bytes: the bytes of all parts together.
    """

    path: str
    version: int
    values: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    parts: tuple[str, ...]
    file_bytes: int

    def tensor_values(self, name: str) -> npt.NDArray[np.float32]:
        """Read a small tensor of numbers that are not quantised, such as RoPE's factors.

        Returns:
            float32 [n_elements].

        Raises:
            KeyError: there is no such tensor.
            ModelLoadError: it is quantised or large, or the file cannot be read.
        """
        tensor = self.tensors[name]
        if tensor.type_name not in ("f32", "f16", "bf16") or tensor.n_values > MAX_TENSOR_VALUES:
            raise ModelLoadError(
                f"'{self.path}': the tensor {name} is {tensor.type_name} {list(tensor.shape)}, where a small one of "
                "f32, f16 or bf16 is expected; convert the model again"
            )
        with open_source(self.parts[tensor.part], first_block=1) as source:
            if tensor.offset + tensor.n_bytes > source.size:
                raise ModelLoadError(f"'{source.name}' became shorter since it was read; wait until it is complete")
            data = source.read(tensor.offset, tensor.n_bytes) if tensor.n_bytes else b""
        if tensor.type_name == "bf16":
            return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(data, dtype="<f4" if tensor.type_name == "f32" else "<f2").astype(np.float32)


def read_metadata(path: str | os.PathLike[str]) -> GGUFMetadata:
    """Read the metadata of a model.

    Args:
        path: a GGUF file, any part of a split model, or an address: ``https://…``, ``http://…``, or
            ``hf://owner/repository/path/to/file.gguf``, of which no more than the metadata is fetched.

    Raises:
        ModelLoadError: a file is missing, damaged, not GGUF, or of a kind that is not read; the message names it and
            tells what can be done.
    """
    part = _read_part(path)
    names = _part_names(part)
    if len(names) == 1:
        return GGUFMetadata(part.name, part.version, part.values, part.tensors, (part.name,), part.size)
    parts = [part if name == part.name else _read_split(name, number, names) for number, name in enumerate(names)]
    tensors: dict[str, TensorInfo] = {}
    for number, piece in enumerate(parts):
        for name, tensor in piece.tensors.items():
            if name in tensors:
                raise ModelLoadError(
                    f"'{piece.name}' and another part both hold the tensor {name}; download them again"
                )
            tensors[name] = TensorInfo(name, tensor.shape, tensor.type_name, tensor.n_bytes, number, tensor.offset)
    expected = parts[0].values.get("split.tensors.count")
    if isinstance(expected, int) and expected != len(tensors):
        raise ModelLoadError(
            f"'{names[0]}' says that its parts hold {expected} tensors, and they hold {len(tensors)}; download them "
            "again"
        )
    size = sum(piece.size for piece in parts)
    return GGUFMetadata(names[0], parts[0].version, parts[0].values, tensors, tuple(names), size)


# --- parts of a split model ---


def _part_names(part: Part) -> list[str]:
    count = part.values.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return [part.name]
    match = _PART_NAME.match(part.name)
    if match is None or int(match["count"]) != count or count > MAX_PARTS:
        raise ModelLoadError(
            f"'{part.name}' is one of {count} parts of a model; parts have to be named NAME-00001-of-{count:05}.gguf "
            "and so on"
        )
    query = match["query"] or ""
    return [f"{match['stem']}-{number:05}-of-{count:05}.gguf{query}" for number in range(1, count + 1)]


def _read_split(name: str, number: int, names: list[str]) -> Part:
    try:
        part = _read_part(name)
    except ModelLoadError as error:
        raise ModelLoadError(f"part {number + 1} of {len(names)} of this model cannot be read: {error}") from error
    if part.values.get("split.count") != len(names) or part.values.get("split.no") != number:
        raise ModelLoadError(f"'{name}' is not part {number + 1} of {len(names)} of this model; download it again")
    return part


def _read_part(path: str | os.PathLike[str]) -> Part:
    with open_source(path) as source:
        return GGUFReader(source).read()
