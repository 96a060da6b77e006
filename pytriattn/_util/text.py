"""How numbers, bytes and names from files are written for people."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_bytes", "layer_ranges", "printable"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(n: float) -> str:
    """Return bytes in the largest unit of which there is at least one: ``16.9 MiB``."""
    value = float(n)
    unit = 0
    # 1023.95 KiB would be rounded to 1024.0
    while round(value, 1) >= 1024 and unit + 1 < len(_UNITS):
        value /= 1024
        unit += 1
    return f"{value:,.0f} B" if unit == 0 else f"{value:,.1f} {_UNITS[unit]}"


def printable(text: object) -> str:
    """Return a text from a file with U+FFFD in place of what could end a line or move a terminal's cursor."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))


def layer_ranges(layers: Iterable[int]) -> str:
    """Return ascending numbers with runs of three or more joined: ``0-4, 6, 8``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
