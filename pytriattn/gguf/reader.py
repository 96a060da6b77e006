"""Reading one GGUF file up to its weights. Call `metadata.read_metadata`, which knows split models too."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from pytriattn.errors import ModelLoadError
from pytriattn.gguf.source import ByteSource
from pytriattn.gguf.types import ARRAY, BOOL, STRING, TENSOR_TYPES, VALUE_TYPES

__all__ = ["GGUFReader", "Part", "SkippedArray", "TensorInfo", "Value"]

MAX_BYTES = 1 << 27
"""Metadata longer than this are a damaged file's: those of models with a vocabulary of 262,144 tokens take 20 MB."""
MAX_STRINGS = 1 << 21
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_NAME = 1 << 16
MAX_ELEMENTS = 1 << 14
"""Longer arrays of numbers (a vocabulary's scores) are skipped."""
MAX_DIMENSIONS = 4

_LENGTH = struct.Struct("<Q")
_TYPE = struct.Struct("<I")


@dataclass(frozen=True)
class SkippedArray:
    """An array that was counted, not read.

    Attributes:
        length: number of elements.
        of_strings: whether they are strings.
    """

    length: int
    of_strings: bool


Value = bool | int | float | str | npt.NDArray[np.generic] | SkippedArray
"""What a key stands for; arrays of numbers are flat."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor, without its values.

    Attributes:
        name: the name in the file.
        shape: the dimensions in ggml's order: that of neighbours in memory first.
        type_name: such as ``q4_K``; ``type 99`` where the number is not known here.
        n_bytes: the bytes of the values; 0 if the type is not known here.
        part: the file of a split model that holds it, from 0.
        offset: the place of the values in that file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    n_bytes: int
    part: int
    offset: int

    @property
    def n_values(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


@dataclass
class Part:
    """What one file holds.

    Attributes:
        name: the file or its address.
        size: the size of the file in bytes.
        version: the version of the format.
        values: the values by key.
        tensors: the tensors by name.
    """

    name: str
    size: int
    version: int = 0
    values: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)


class GGUFReader:
    """Goes through a file from its start, a window of bytes at a time.

    Args:
        source: the source of the bytes.
    """

    def __init__(self, source: ByteSource) -> None:
        """See the class."""
        self._source = source
        self._end = min(source.size, MAX_BYTES)
        self._window = b""
        self._start = 0  # of the window in the file
        self._position = 0  # in the window
        self._n_strings = 0

    def read(self) -> Part:
        """Return the contents before the weights.

        Raises:
            ModelLoadError: the file is damaged, or of a kind that is not read.
        """
        part = Part(self._source.name, self._source.size)
        part.version, n_tensors, n_keys = self._header()
        for _ in range(n_keys):
            key = self._name("key")
            if key in part.values:
                self._damaged(f"has the key {key} twice")
            part.values[key] = self._value(key)
        tensors = [self._tensor() for _ in range(n_tensors)]
        alignment = part.values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            self._damaged("has an alignment that is no power of two")
        here = self._start + self._position
        data = -(-here // alignment) * alignment
        for tensor in tensors:
            part.tensors[tensor.name] = self._placed(tensor, data, alignment)
        if len(part.tensors) != n_tensors:
            self._damaged("has two tensors of the same name")
        return part

    def _header(self) -> tuple[int, int, int]:
        name, size = self._source.name, self._source.size
        if size == 0:
            raise ModelLoadError(f"'{name}' is empty; download it again")
        magic = self._take(min(4, size))
        if magic != b"GGUF":
            raise ModelLoadError(
                f"'{name}' is not a GGUF file (it starts with {magic!r}); convert the model to GGUF, or download it "
                "again"
            )
        version = _TYPE.unpack(self._take(4))[0]
        if version & 0xFFFF == 0:
            raise ModelLoadError(
                f"'{name}' is a big-endian file; convert it to little-endian with gguf_convert_endian.py"
            )
        if version == 1:
            raise ModelLoadError(f"'{name}' has version 1 of the GGUF format; convert the model again")
        if version not in (2, 3):
            raise ModelLoadError(
                f"'{name}' has version {version} of the GGUF format, and 2 and 3 are known; update pytriattn"
            )
        n_tensors, n_keys = self._length(), self._length()
        # the shortest tensor: a name, the number of dimensions, a type, an offset; the shortest value: a key, a type, a
        # byte
        self._check_count(n_tensors, 24, MAX_TENSORS, "tensors")
        self._check_count(n_keys, 13, MAX_KEYS, "keys")
        return version, n_tensors, n_keys

    # --- values ---

    def _value(self, key: str) -> Value:
        kind = _TYPE.unpack(self._take(4))[0]
        if kind == STRING:
            return self._string(self._length(), f"the value of {key}")
        if kind == ARRAY:
            return self._array(key)
        if kind not in VALUE_TYPES:
            self._damaged(f"has a value of unknown type {kind} for {key}")
        dtype = VALUE_TYPES[kind]
        number = np.frombuffer(self._take(dtype.itemsize), dtype=dtype)[0].item()
        return bool(number) if kind == BOOL else number

    def _array(self, key: str) -> Value:
        kind = _TYPE.unpack(self._take(4))[0]
        length = self._length()
        if kind == STRING:
            self._n_strings += length
            self._check_count(length, 8, MAX_STRINGS, f"strings in {key}")
            self._check_count(self._n_strings, 0, MAX_STRINGS, "strings")
            self._skip_strings(length)
            return SkippedArray(length, of_strings=True)
        if kind not in VALUE_TYPES:
            what = "nested arrays" if kind == ARRAY else f"values of unknown type {kind}"
            self._damaged(f"has an array of {what} for {key}")
        dtype = VALUE_TYPES[kind]
        self._check_count(length, dtype.itemsize, MAX_BYTES, f"numbers in {key}")
        if length > MAX_ELEMENTS:
            self._skip(length * dtype.itemsize)
            return SkippedArray(length, of_strings=False)
        numbers = np.frombuffer(self._take(length * dtype.itemsize), dtype=dtype)
        return numbers != 0 if kind == BOOL else numbers

    def _skip_strings(self, n_strings: int) -> None:
        unpack = _LENGTH.unpack_from
        left = n_strings
        while left > 0:
            self._need(8)
            window, position = self._window, self._position
            last = len(window) - 8
            # a hundred thousand times: nothing but the next length is looked at, and lengths are checked at the
            # window's end
            while left > 0 and position <= last:
                position += 8 + unpack(window, position)[0]
                left -= 1
            self._position = position
            self._check_end(0)

    # --- tensors ---

    def _tensor(self) -> TensorInfo:
        name = self._name("tensor")
        n_dimensions = _TYPE.unpack(self._take(4))[0]
        if n_dimensions > MAX_DIMENSIONS:
            self._damaged(f"has a tensor of {n_dimensions} dimensions, {name}")
        shape = struct.unpack(f"<{n_dimensions}Q", self._take(8 * n_dimensions))
        kind = _TYPE.unpack(self._take(4))[0]
        offset = self._length()
        type_name, block, block_bytes = TENSOR_TYPES.get(kind, (f"type {kind}", 1, 0))
        n_values = math.prod(shape)
        if n_values >= 1 << 63:
            self._damaged(f"has a tensor of {n_values} values, {name}")
        row = shape[0] if shape else 1
        if row % block != 0:
            self._damaged(
                f"has rows of {row} values in the {type_name} tensor {name}, which blocks of {block} do not fill"
            )
        return TensorInfo(name, shape, type_name, n_values // block * block_bytes, 0, offset)

    def _placed(self, tensor: TensorInfo, data: int, alignment: int) -> TensorInfo:
        start = data + tensor.offset
        if tensor.offset % alignment != 0:
            self._damaged(f"has a tensor at a place that its alignment forbids, {tensor.name}")
        if start + tensor.n_bytes > self._source.size:
            self._truncated(f"before the end of the tensor {tensor.name}")
        return TensorInfo(tensor.name, tensor.shape, tensor.type_name, tensor.n_bytes, 0, start)

    # --- bytes ---

    def _length(self) -> int:
        length: int = _LENGTH.unpack(self._take(8))[0]
        return length

    def _name(self, what: str) -> str:
        length = self._length()
        if length > MAX_NAME:
            self._damaged(f"has a {what} whose name takes {length} bytes")
        return self._string(length, f"the name of a {what}")

    def _string(self, length: int, what: str) -> str:
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            if what.startswith("the value"):
                return ""  # a description in another encoding does no harm
            self._damaged(f"has bytes that are no text in {what}")

    def _take(self, n_bytes: int) -> bytes:
        self._need(n_bytes)
        start = self._position
        self._position += n_bytes
        return self._window[start : self._position]

    def _skip(self, n_bytes: int) -> None:
        self._check_end(n_bytes)
        self._position += n_bytes

    def _need(self, n_bytes: int) -> None:
        """Have the next `n_bytes` in the window."""
        if self._position + n_bytes <= len(self._window):
            return
        self._check_end(n_bytes)
        here = self._start + self._position
        n_read = min(max(n_bytes, self._source.next_block()), self._source.size - here)
        self._window, self._start, self._position = self._source.read(here, n_read), here, 0

    # --- checks ---

    def _check_count(self, count: int, n_bytes: int, limit: int, what: str) -> None:
        left = self._source.size - self._start - self._position
        if count > limit or count * n_bytes > left:
            self._damaged(
                f"says that it has {count} {what}, more than " + ("any model" if count > limit else "fit into it")
            )

    def _check_end(self, n_bytes: int) -> None:
        end = self._start + self._position + n_bytes
        if end > self._source.size:
            self._truncated("within its metadata")
        if end > self._end:
            self._damaged(f"has more than {MAX_BYTES >> 20} MiB of metadata")

    def _truncated(self, where: str) -> NoReturn:
        raise ModelLoadError(
            f"'{self._source.name}' ends after {self._source.size} bytes, {where}: it is incomplete or damaged; "
            "download it again"
        )

    def _damaged(self, what: str) -> NoReturn:
        raise ModelLoadError(f"'{self._source.name}' {what}: it is damaged; download it again")
