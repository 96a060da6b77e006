"""Values of a model's metadata, checked, and a note of where each number came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from pytriattn.errors import ModelLoadError
from pytriattn.gguf.metadata import GGUFMetadata, SkippedArray, Value
from pytriattn.model_info.layers import Fact

__all__ = ["Keys"]

DEFAULT = "default of llama.cpp (src/llama-model.cpp)"
LARGEST_SIZE = 1 << 20
"""Widths, heads and the like: far more than any model has, and little enough to compute with."""


class Keys:
    """The keys of one model, under its architecture's prefix.

    Each method that takes `fact` notes under this name the value that it returns, and where the value is from.

    Args:
        metadata: the file's metadata.
        architecture: the name that the keys begin with.
        rule: the source of facts that no key gives: ``rule of llama (src/models/llama.cpp)``.
        is_strict: an array for another number of layers is an error; otherwise it is cut, or filled up with zeros.
    """

    def __init__(self, metadata: GGUFMetadata, architecture: str, rule: str, *, is_strict: bool = True) -> None:
        """See the class."""
        self._is_strict = is_strict
        self.metadata = metadata
        self.rule = rule
        self.facts: dict[str, Fact] = {}
        self.architecture = architecture

    def note(self, fact: str, value: object, source: str = "") -> None:
        """Note a fact from `source`; without one, from the architecture's rules."""
        self.facts[fact] = Fact(value, source or self.rule)

    def note_key(self, fact: str, value: object, name: str, *, is_rule: bool = False) -> None:
        """Note a fact from its key or, without the key, from llama.cpp's defaults (`is_rule`: from the rules)."""
        default = self.rule if is_rule else DEFAULT
        self.note(fact, value, f"key {self.full(name)}" if self.has(name) else default)

    def full(self, name: str) -> str:
        """Return the whole key."""
        return f"{self.architecture}.{name}"

    def has(self, name: str) -> bool:
        """Tell whether the key is there."""
        return self.full(name) in self.metadata.values

    def is_array(self, name: str) -> bool:
        """Tell whether the key is there and holds an array."""
        return isinstance(self._value(name), np.ndarray | SkippedArray)

    def integer(self, name: str, default: int = 0, *, limit: int = LARGEST_SIZE, fact: str = "") -> int:
        """Return a whole number from 0 up to `limit`.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self._value(name)
        if value is None:
            value = default
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            self.wrong(name, f"a whole number up to {limit}")
        if fact:
            self.note_key(fact, value, name)
        return value

    def number(self, name: str, default: float, *, fact: str = "") -> float:
        """Return a finite number.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self._value(name)
        if value is None:
            value = default
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong(name, "a number")
        if fact:
            self.note_key(fact, value, name)
        return float(value)

    def text(self, name: str, default: str) -> str:
        """Return a string.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self._value(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.wrong(name, "a string")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self._value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(name, "true or false")
        return value

    def array(self, name: str) -> list[int]:
        """Return an array of whole numbers or truth values; without the key an empty one.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self._value(name)
        if value is None:
            return []
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iub":
            self.wrong(name, "an array of whole numbers")
        numbers: list[int] = value.astype(object).tolist() if value.dtype.kind != "b" else value.astype(int).tolist()
        if any(not -LARGEST_SIZE <= number <= LARGEST_SIZE for number in numbers):
            self.wrong(name, f"an array of whole numbers up to {LARGEST_SIZE}")
        return numbers

    def by_layer(self, name: str, n_layer: int, default: Sequence[int]) -> list[int]:
        """Return one whole number for each layer; the file may give one for all of them.

        Raises:
            ModelLoadError: it is something else, or there are too few or too many.
        """
        if not self.has(name):
            return list(default)
        if not self.is_array(name):
            return [self.integer(name)] * n_layer
        numbers = self.array(name)
        if not self._is_strict:
            numbers = [max(number, 0) for number in numbers[:n_layer]] + [0] * (n_layer - len(numbers))
        if len(numbers) != n_layer or any(number < 0 for number in numbers):
            self.wrong(name, f"{n_layer} whole numbers")
        return numbers

    def wrong(self, name: str, expected: str) -> NoReturn:
        """Refuse a value.

        Raises:
            ModelLoadError: always.
        """
        raise ModelLoadError(
            f"'{self.metadata.path}': the key {self.full(name)} is {_short(self._value(name))}, it must be {expected}; "
            "the file is damaged or its conversion went wrong: download it again"
        )

    def _value(self, name: str) -> Value | None:
        return self.metadata.values.get(self.full(name))


def _short(value: object) -> str:
    if isinstance(value, SkippedArray):
        return f"an array of {value.length} {'strings' if value.of_strings else 'numbers'}"
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else text[:57] + "..."
