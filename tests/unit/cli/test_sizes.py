"""Sizes as users write them."""

from __future__ import annotations

import argparse

import pytest

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
