"""Sizes of memory and whole numbers, as users write them on the command line."""

from __future__ import annotations

import argparse
import re

__all__ = ["natural", "parse_size", "positive", "positives"]

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes of ``123456``, ``800M``, ``12G``, ``1.5 GiB``.

    K, M, G and T are powers of 1024, with or without ``iB`` or ``B``.

    Raises:
        argparse.ArgumentTypeError: it is no size, or less than a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()]) if match and len(match[1]) < 20 else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or 800M, 12G, 1.5T")
    return size


def _whole(text: str, least: int, what: str) -> int:
    digits = text.strip().replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19 and int(digits) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(digits)


def positive(text: str) -> int:
    """Return a whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    return _whole(text, 1, "a whole number above 0")


def positives(text: str) -> tuple[int, ...]:
    """Return whole numbers above 0 that commas separate.

    Raises:
        argparse.ArgumentTypeError: one of them is something else.
    """
    return tuple(positive(number) for number in text.split(","))


def natural(text: str) -> int:
    """Return a whole number, 0 included.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    return _whole(text, 0, "a whole number")
