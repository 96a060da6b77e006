"""Sizes as users write them, and numbers and names as the tools write them."""

from __future__ import annotations

import argparse

import pytest

from pytriattn._util.text import format_bytes, layer_ranges, printable
from pytriattn.cli.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123456", 123456),
        ("800M", 800 * 2**20),
        ("12G", 12 * 2**30),
        ("12gb", 12 * 2**30),
        (" 1.5 GiB ", 3 * 2**29),
        (".5k", 512),
        ("2T", 2**41),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1e9", "12X", "0", "0.1", "1 2", "nan", "٣G", "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        parse_size(text)


def test_bytes_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1024**2 - 1, 3 * 2**29)] == [
        "0 B",
        "1,023 B",
        "1.0 KiB",
        "1.0 MiB",
        "1.5 GiB",
    ]


def test_layers_for_people() -> None:
    assert layer_ranges([]) == ""
    assert layer_ranges([0, 1, 2, 4, 5, 7]) == "0-2, 4, 5, 7"


def test_names_from_files_cannot_write_on_the_terminal() -> None:
    assert printable("a\x1b[31m\nb\x07ü") == "a\ufffd[31m\ufffdb\ufffdü"
