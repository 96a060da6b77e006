"""Numbers and names as the programs write them."""

from __future__ import annotations

from pytriattn._util.text import format_bytes, layer_ranges, printable


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
