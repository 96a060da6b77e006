"""Pickles of plain dictionaries and tensors, read without executing anything, and written so that torch reads them.

Python's own unpickler calls what a pickle names, and reserves the memory that it asks for. This reader has a table of
the few operations that dictionaries of tensors need, and a short table of names. It imports nothing.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.errors import StatsError

__all__ = ["StorageId", "TensorView", "dump", "load"]


class _Name(NamedTuple):
    """What a pickle may name; it stays a name."""

    module: str
    name: str


_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_ORDERED_DICT = _Name("collections", "OrderedDict")
_FLOAT = _Name("torch", "FloatStorage")
_DOUBLE = _Name("torch", "DoubleStorage")
_STORAGES: dict[_Name, np.dtype[Any]] = {_FLOAT: np.dtype("<f4"), _DOUBLE: np.dtype("<f8")}
# metadata may note the type of the weights; it stays a name as well
_TYPES = {_Name("torch", name) for name in ("float16", "bfloat16", "float32", "float64")}
_ALLOWED = {_REBUILD, _ORDERED_DICT, *_STORAGES, *_TYPES}
_MARK = object()


@dataclass(frozen=True)
class StorageId:
    """The numbers of one or several tensors: a file of its own beside the pickle.

    Attributes:
        key: the file's name.
        dtype: the type of its numbers.
        count: the number of numbers.
    """

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor of one dimension: `count` numbers of a storage from `offset` on."""

    storage: StorageId
    offset: int
    count: int


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _storage(value: object) -> StorageId:
    if not (isinstance(value, tuple) and len(value) == 5 and value[0] == "storage"):
        raise StatsError("it refers to an object that is not an array of numbers")
    _, kind, key, _, count = value
    if not isinstance(kind, _Name) or kind not in _STORAGES:
        raise StatsError("a tensor in it is neither float32 nor float64")
    if not (isinstance(key, str) and _is_count(count)):
        raise StatsError("it refers to a storage wrongly")
    return StorageId(key, _STORAGES[kind], count)


def _tensor(arguments: tuple[Any, ...]) -> TensorView:
    if len(arguments) < 4 or not isinstance(arguments[0], StorageId):
        raise StatsError("a tensor in it has no storage")
    storage, offset, shape, stride = arguments[:4]
    if not (isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) == 1):
        raise StatsError("a tensor in it does not have one dimension")
    if not (_is_count(offset) and _is_count(shape[0]) and (stride[0] == 1 or shape[0] <= 1)):
        raise StatsError("a tensor in it is not contiguous")
    if offset + shape[0] > storage.count:
        raise StatsError(f"a tensor in it reaches beyond its storage of {storage.count} numbers")
    return TensorView(storage, offset, shape[0])


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise StatsError("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise StatsError(f"its pickle adds to something that is no {kind.__name__}")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise StatsError("its pickle has an end without a beginning")

    def put(self, index: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise StatsError("its pickle notes what is not there")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise StatsError("its pickle refers to what it has not noted")
        self.stack.append(self.memo[index])

    def take_last(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise StatsError("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # other keys could be made to take any time to hash
            if not isinstance(key, str):
                raise StatsError("a dictionary in it has keys that are not text")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def append_one(self) -> None:
        item = self.pop()
        self.append([item])

    def name(self, module: object, name: object) -> None:
        found = next((known for known in _ALLOWED if known.module == module and known.name == name), None)
        if found is None:
            raise StatsError(
                f"it names {str(module)[:60]}.{str(name)[:60]}, which no file of statistics needs; nothing of it was "
                "executed"
            )
        self.stack.append(found)

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise StatsError("it names something by other than text")
        self.name(module, name)

    def reduce(self) -> None:
        arguments, what = self.pop(), self.pop()
        if what is _REBUILD and isinstance(arguments, tuple):
            self.stack.append(_tensor(arguments))
        elif what is _ORDERED_DICT and arguments == ():
            self.stack.append({})
        else:
            raise StatsError("its pickle calls something; that is refused")


_Step = Callable[[_Machine, Any], None]
_PUSHED: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
}
_VALUES = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_STEPS: Mapping[str, _Step] = {
    **{name: lambda m, arg, make=make: m.stack.append(make()) for name, make in _PUSHED.items()},  # type: ignore[misc]
    **{name: lambda m, arg: m.stack.append(arg) for name in _VALUES},
    "PROTO": lambda m, arg: None,
    "FRAME": lambda m, arg: None,
    "BINPUT": lambda m, arg: m.put(arg),
    "LONG_BINPUT": lambda m, arg: m.put(arg),
    "MEMOIZE": lambda m, arg: m.put(len(m.memo)),
    "BINGET": lambda m, arg: m.get(arg),
    "LONG_BINGET": lambda m, arg: m.get(arg),
    "TUPLE": lambda m, arg: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, arg: m.take_last(1),
    "TUPLE2": lambda m, arg: m.take_last(2),
    "TUPLE3": lambda m, arg: m.take_last(3),
    "APPEND": lambda m, arg: m.append_one(),
    "APPENDS": lambda m, arg: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, arg: m.set_item(),
    "SETITEMS": lambda m, arg: m.set_items(m.pop_to_mark()),
    "GLOBAL": lambda m, arg: m.name(*arg.partition(" ")[::2]),
    "STACK_GLOBAL": lambda m, arg: m.stack_name(),
    "BINPERSID": lambda m, arg: m.stack.append(_storage(m.pop())),
    "REDUCE": lambda m, arg: m.reduce(),
}


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes if opcode.name in (*_STEPS, "STOP")}
_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}


def _operations(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield each operation's name and argument; arguments of refused operations are not even read."""
    stream = io.BytesIO(data)
    while code := stream.read(1).decode("latin-1"):
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise StatsError(
                f"its pickle uses the operation {_NAMES.get(code, repr(code))}, which no file of statistics needs"
            )
        yield opcode.name, opcode.arg.reader(stream) if opcode.arg is not None else None


def load(data: bytes) -> Any:
    """Return what a pickle describes: dict, list, tuple, str, int, float, bool, None and `TensorView`.

    Raises:
        StatsError: the pickle is damaged, or uses or names anything else.
    """
    machine = _Machine()
    try:
        for name, argument in _operations(data):
            if name == "STOP":
                return machine.pop()
            _STEPS[name](machine, argument)
    except StatsError:
        raise
    except (ValueError, struct.error, OverflowError) as error:
        raise StatsError(f"its pickle is damaged ({error})") from error
    raise StatsError("its pickle has no end")


class _Writer:
    """Writes a pickle of protocol 2, the one that torch writes; names are spelt out, so torch is not needed."""

    def __init__(self) -> None:
        self.parts: list[bytes] = [b"\x80\x02"]
        self.storages: list[npt.NDArray[np.float32]] = []

    def global_name(self, name: _Name) -> None:
        self.parts.append(f"c{name.module}\n{name.name}\n".encode())

    def integer(self, value: int) -> None:
        self.parts.append(b"J" + struct.pack("<i", value))

    def tensor(self, values: npt.NDArray[np.float32]) -> None:
        key = str(len(self.storages))
        self.storages.append(values)
        self.global_name(_REBUILD)
        self.parts.append(b"((")
        self.value("storage")
        self.global_name(_FLOAT)
        self.value(key)
        self.value("cpu")
        self.integer(values.size)
        self.parts.append(b"tQ")
        self.integer(0)
        self.integer(values.size)
        self.parts.append(b"\x85")
        self.integer(1)
        self.parts.append(b"\x85\x89")
        self.global_name(_ORDERED_DICT)
        self.parts.append(b")RtR")

    def value(self, value: Any) -> None:
        if isinstance(value, dict):
            self.parts.append(b"}(")
            for key, item in value.items():
                self.value(key)
                self.value(item)
            self.parts.append(b"u")
        elif isinstance(value, list):
            self.parts.append(b"](")
            for item in value:
                self.value(item)
            self.parts.append(b"e")
        elif isinstance(value, str):
            encoded = value.encode("utf-8", "replace")
            self.parts.append(b"X" + struct.pack("<I", len(encoded)) + encoded)
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, float):
            self.parts.append(b"G" + struct.pack(">d", value))
        else:
            self.tensor(value)


def dump(value: Any) -> tuple[bytes, list[npt.NDArray[np.float32]]]:
    """Return the pickle of dicts, lists, str, int, float and float32 arrays [n], and the arrays by ascending key."""
    writer = _Writer()
    writer.value(value)
    return b"".join(writer.parts) + b".", writer.storages
