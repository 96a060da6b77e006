"""What the pages of the documentation say: blocks of code, commands, tables."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from support.paths import ROOT

DOCS = ROOT / "docs"
NO_PROGRAMS = {"pytriattn-cuda13", "pytriattn-models.json"}
"""A package and a file whose names begin like those of our programs."""
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*$")


@dataclass(frozen=True)
class Block:
    """A block of Python: where it begins, and whether the page says that it cannot run."""

    line: int
    code: str
    is_run: bool


def pages() -> list[pathlib.Path]:
    """Return README.md and all pages."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def python_blocks(page: pathlib.Path) -> list[Block]:
    """Return the fenced blocks of Python in a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        found.append(Block(before.count("\n") + 2, match[1], NOT_RUN.search(before) is None))
    return found


def commands(page: pathlib.Path) -> Iterator[str]:
    """Yield what a page says of our programs: lines of indented or fenced blocks, and commands within a text."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.match(r"(    )?pytriattn-", line):
            yield line.strip().split("  #")[0]
        yield from (text for text in re.findall(r"`(pytriattn-[^`]+)`", line) if text not in NO_PROGRAMS)


def sections(page: pathlib.Path) -> dict[str, str]:
    """Return heading -> text below it, of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """Return the rows of tables whose first cell is code, without its backticks."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return [[row[0].strip("`"), *row[1:]] for row in found]
