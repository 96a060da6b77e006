"""Bounds of numbers in JSON schemas, and grammar rules of the numbers between them.

llama.cpp's converter holds whole numbers to bounds and no others. A number with bounds becomes a constant text for it,
and that text's rule is exchanged for one of the numbers: signs, digits and a fraction, without an exponent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from pytriattn.generation.schemas.keywords import Impossible, refuse

__all__ = ["LARGEST_WHOLE", "WHOLE_FORMATS", "Bounds", "bounds_of", "exchange_numbers", "stand_in"]

_N_DIGITS = 15  # before the point, and after it
LARGEST_WHOLE = 10**_N_DIGITS - 1
"""The converter's integers have so many digits."""
WHOLE_FORMATS = {
    f"{u}int{n}": (0 if u else -(2 ** (n - 1)), 2 ** (n if u else n - 1) - 1) for u in ("", "u") for n in (8, 16, 32)
}
"""Format of an integer -> its smallest and largest value."""
_STAND_IN = re.compile(r'"\\"pytriattn: a number from (\S+)( \(not included\))? to (\S+)( \(not included\))?\\""')


class Bounds(NamedTuple):
    """The limits of a number, infinite if there is none, and whether the limits themselves are excluded."""

    low: Decimal
    high: Decimal
    is_low_open: bool = False
    is_high_open: bool = False

    def admits(self, value: float) -> bool:
        """Return whether a number lies between them."""
        x = Decimal(repr(value))
        above = self.low < x or (self.low == x and not self.is_low_open)
        return above and (x < self.high or (x == self.high and not self.is_high_open))


def bounds_of(schema: Mapping[str, Any], path: str) -> Bounds:
    """Return the limits of a number; for an integer, those of whole numbers, both included.

    Raises:
        GrammarError: one is no number, or no number fulfils them.
    """
    bounds = Bounds(Decimal("-inf"), Decimal("inf"))
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        value = schema.get(key)
        is_upper, is_open = key.lower().endswith("maximum"), key.startswith("exclusive")
        if isinstance(value, bool) and is_open:  # as in draft 4
            value = schema.get("maximum" if is_upper else "minimum") if value else None
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise refuse(path, f"has {key} {value!r}, it must be a number")
        limit = Decimal(repr(value))
        if schema.get("type") == "integer" and limit.is_finite():
            whole = math.floor(value) if is_upper else math.ceil(value)
            limit = Decimal(whole + (1 if not is_upper else -1) * (is_open and whole == value))
            is_open = False
        if is_upper and (limit < bounds.high or (limit == bounds.high and is_open)):
            bounds = bounds._replace(high=limit, is_high_open=is_open)
        if not is_upper and (limit > bounds.low or (limit == bounds.low and is_open)):
            bounds = bounds._replace(low=limit, is_low_open=is_open)
    is_empty = bounds.low == bounds.high and (bounds.is_low_open or bounds.is_high_open)
    if bounds.low > bounds.high or is_empty:
        raise Impossible(f"this JSON schema admits no value: {path} must be from {bounds.low} to {bounds.high}")
    return bounds


def stand_in(bounds: Bounds) -> str | None:
    """Return the text that stands for the numbers between limits; None: they have too many digits."""
    parts = []
    for limit, is_open in ((bounds.low, bounds.is_low_open), (bounds.high, bounds.is_high_open)):
        text = format(limit, "f") if limit.is_finite() else str(limit)
        whole, _, fraction = text.lstrip("-").partition(".")
        if limit.is_finite() and max(len(whole), len(fraction)) > _N_DIGITS:
            return None
        parts.append(text + (" (not included)" if is_open else ""))
    return f"pytriattn: a number from {parts[0]} to {parts[1]}"


def exchange_numbers(grammar: str) -> str:
    """Return rules in which numbers stand in place of the texts for them."""
    rules: dict[str, str] = {}

    def exchange(found: re.Match[str]) -> str:
        bounds = Bounds(Decimal(found[1]), Decimal(found[3]), found[2] is not None, found[4] is not None)
        rule = " | ".join(_numbers(bounds))
        return rules.setdefault(rule, f"pytriattn-number-{len(rules)}")

    text = _STAND_IN.sub(exchange, grammar)
    if not rules:
        return grammar
    return text.rstrip("\n") + "\n" + "".join(f"{name} ::= {rule}\n" for rule, name in rules.items())


def _numbers(bounds: Bounds) -> list[str]:
    """Return the ways to write a number between limits."""
    zero = Decimal(0)
    low, high, is_low_open, is_high_open = bounds
    ways = []
    if low < 0:
        mirrored = Bounds(max(zero, -high), -low, high >= 0 or is_high_open, is_low_open)
        ways += [f'"-" {way}' for way in _positive(mirrored)]
    if high >= 0:
        ways += _positive(Bounds(max(low, zero), high, is_low_open and low >= 0, is_high_open))
    return ways


def _positive(bounds: Bounds) -> list[str]:
    first, low = _digits(bounds.low)
    last, high = _digits(bounds.high) if bounds.high.is_finite() else (LARGEST_WHOLE + 1, "")
    if first == last:
        return _with_fraction(first, bounds, low, high, is_first=True, is_last=True)
    ways = _with_fraction(first, bounds, low, "", is_first=True, is_last=False)
    ways += [f'{whole} ("." [0-9]{{1,{_N_DIGITS}}})?' for whole in _whole_numbers(first + 1, last - 1)]
    if last <= LARGEST_WHOLE:
        ways += _with_fraction(last, bounds, "", high, is_first=False, is_last=True)
    return ways


def _digits(limit: Decimal) -> tuple[int, str]:
    whole, _, fraction = format(limit, "f").partition(".")
    return int(whole), fraction.rstrip("0")


def _with_fraction(whole: int, bounds: Bounds, low: str, high: str, *, is_first: bool, is_last: bool) -> list[str]:
    """Return the ways to write a number that begins as the lower limit does (`is_first`), the upper one, or both."""
    n = max(len(low), len(high))
    low, high = low.ljust(n, "0"), high.ljust(n, "0")

    def may_end(i: int, at_low: bool, at_high: bool) -> bool:
        is_high_enough = not at_low or (not low[i:].strip("0") and not bounds.is_low_open)
        return is_high_enough and (not at_high or bool(high[i:].strip("0")) or not bounds.is_high_open)

    def rest(i: int, at_low: bool, at_high: bool) -> list[str]:
        """Return the ways to go on with at least one digit, after i digits that are those of the limits."""
        least, most = (int(low[i]) if at_low and i < n else 0), (int(high[i]) if at_high and i < n else 9)
        if i == n and at_high:
            zeros = f'"0"{{1,{_N_DIGITS}}}'
            return [zeros] if may_end(i, at_low, at_high) else []
        if i == n:
            return [
                f'"0"{{0,{_N_DIGITS}}} [1-9] [0-9]{{0,{_N_DIGITS}}}'
                if bounds.is_low_open
                else f"[0-9]{{1,{_N_DIGITS}}}"
            ]
        ways = []
        inner = (least + at_low, most - at_high)
        if inner[0] <= inner[1]:
            ways.append(f"[{inner[0]}-{inner[1]}] [0-9]{{0,{_N_DIGITS}}}")
        edges = {(least, True, at_high and least == most)} if at_low else set()
        edges |= {(most, at_low and least == most, True)} if at_high else set()
        for digit, still_low, still_high in sorted(edges):
            if may_end(i + 1, still_low, still_high):
                ways.append(f'"{digit}"')
            ways += [f'"{digit}" {way}' for way in rest(i + 1, still_low, still_high)]
        return ways

    fractions = rest(0, is_first, is_last)
    result = [f'"{whole}"'] if may_end(0, is_first, is_last) else []
    return result + ([f'"{whole}." ({" | ".join(fractions)})'] if fractions else [])


def _whole_numbers(first: int, last: int) -> list[str]:
    """Return the ways to write a whole number, from `first` to `last`."""
    ways = []
    while first <= last:
        end = min(last, 10 ** len(str(first)) - 1)
        ways += _same_length(str(first), str(end))
        first = end + 1
    return ways


def _same_length(low: str, high: str) -> list[str]:
    if low == high:
        return [f'"{low}"']
    n = len(low) - 1
    if n == 0:
        return [f"[{low}-{high}]"]
    if low[0] == high[0]:
        return [f'"{low[0]}" {way}' for way in _same_length(low[1:], high[1:])]
    least, most, ways = int(low[0]), int(high[0]), []
    if low[1:].strip("0"):
        ways += [f'"{least}" {way}' for way in _same_length(low[1:], "9" * n)]
        least += 1
    upper = []
    if high[1:].strip("9"):
        upper = [f'"{most}" {way}' for way in _same_length("0" * n, high[1:])]
        most -= 1
    return [*ways, *([f"[{least}-{most}] [0-9]{{{n}}}"] if least <= most else []), *upper]
