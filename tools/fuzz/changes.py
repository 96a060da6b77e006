"""What fuzzing does to inputs without a guide, and which functions a guide can follow."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator
from types import FunctionType

__all__ = ["changed_inputs", "functions_of"]

LONGEST_INPUT = 20_000
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)


def functions_of(package: str) -> Iterator[FunctionType]:
    """Yield the functions of a package that are loaded; atheris's own hook misses what an editable install imports."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != package:
            continue
        for value in list(vars(module).values()):
            for member in [value, *(vars(value).values() if inspect.isclass(value) else ())]:
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if inspect.isfunction(function) and function.__module__ == name:
                    yield function


def changed_inputs(stored: list[bytes], seed: int) -> Iterator[bytes]:
    """Yield changed inputs for ever."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(stored) if stored else b"")
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _change(data, stored, chance)
        yield bytes(data[:LONGEST_INPUT])


def _change(data: bytearray, stored: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0 if data:
            data[place % len(data)] = chance.randrange(256)
        case 1:
            data[place : place + chance.choice((1, 4, 8, 100))] = b""
        case 2:
            data[place:place] = chance.randbytes(chance.choice((1, 4, 8)))
        case 3:
            width = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
            data[place : place + width] = number.to_bytes(width, "little")
        case 4 if stored:
            other = chance.choice(stored)
            begin = chance.randrange(len(other) + 1)
            data[place:place] = other[begin : begin + chance.randrange(1, 200)]
        case 5 if data:
            begin = chance.randrange(len(data))
            data[place:place] = data[begin : begin + chance.randrange(1, 60)] * chance.choice((1, 2, 50))
