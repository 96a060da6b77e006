#!/usr/bin/env python3
"""Apply the patches of ``patches/`` to a llama.cpp tree: a few lines each, in the order of their numbers.

A patch is a unified diff below a text that gives the reason of every hunk. A hunk fits at its own line or not at all,
since the tree is the pinned one; nothing is searched for and nothing is guessed. Needs no program ``patch``.

As a program it patches a tree of your own: ``python patching.py DIRECTORY``.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PATCHES = Path(__file__).resolve().parent / "patches"
FILE_LINE = re.compile(r"^\+\+\+ b/(\S+)")
HUNK_LINE = re.compile(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class PatchError(Exception):
    """A patch cannot be applied; the message names the patch and the place."""


@dataclass(frozen=True)
class Hunk:
    """Lines of a file that are replaced.

    Attributes:
        path: the file, relative to the tree.
        line: the first line that is replaced, from 1.
        old: the lines as they are, with those around them.
        new: the lines in their place.
    """

    path: str
    line: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def list_patches(folder: Path = PATCHES) -> list[Path]:
    """Return the patches in the order in which they are applied."""
    return sorted(folder.glob("[0-9]*.patch"))


def describe(folder: Path = PATCHES) -> str:
    """Return a line for each patch with its name and hash: what a patched tree says about itself."""
    return "".join(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in list_patches(folder))


def read_hunks(patch: Path) -> list[Hunk]:
    """Return the hunks of a patch.

    Raises:
        PatchError: the file has none, or a line that is not of a unified diff.
    """
    hunks: list[Hunk] = []
    path, body, start = "", [""], 0

    def close() -> None:
        old = tuple(line[1:] for line in body if line[0] in " -")
        new = tuple(line[1:] for line in body if line[0] in " +")
        hunks.append(Hunk(path, start, old, new))

    for number, line in enumerate(patch.read_text(encoding="utf-8").removesuffix("\n").split("\n"), 1):
        named, begun = FILE_LINE.match(line), HUNK_LINE.match(line)
        if (named or begun or line.startswith(("diff ", "--- a/"))) and start:
            close()
            start = 0
        if named:
            path = named[1]
        elif begun:
            body, start = [], int(begun[1])
        elif start:
            if line[:1] not in (" ", "-", "+"):
                raise PatchError(f"{patch.name}:{number} is not a line of a unified diff: {line!r}")
            body.append(line)
    if start:
        close()
    if not hunks:
        raise PatchError(f"{patch.name} has no hunks")
    return hunks


def apply_patch(patch: Path, tree: Path) -> None:
    """Apply a patch to a tree. Nothing is written unless every hunk fits.

    Raises:
        PatchError: a file is missing, or a hunk does not fit.
    """
    files: dict[str, list[str]] = {}
    grown: dict[str, int] = {}
    for hunk in read_hunks(patch):
        lines = files.setdefault(hunk.path, _read(patch, tree, hunk.path))
        at = hunk.line - 1 + grown.get(hunk.path, 0)
        if tuple(lines[at : at + len(hunk.old)]) != hunk.old:
            raise PatchError(
                f"{patch.name} does not fit {hunk.path}, line {hunk.line}: it expects {hunk.old[0]!r} and what "
                "follows. The tree is not the pinned one, or is patched already"
            )
        lines[at : at + len(hunk.old)] = hunk.new
        grown[hunk.path] = grown.get(hunk.path, 0) + len(hunk.new) - len(hunk.old)
    for path, lines in files.items():
        (tree / path).write_bytes("\n".join(lines).encode())


def is_applied(patch: Path, tree: Path) -> bool:
    """Say whether a tree, of any version, has every hunk of a patch, at whatever line.

    Raises:
        PatchError: a file that the patch changes is missing.
    """
    for hunk in read_hunks(patch):
        text = "\n" + "\n".join(_read(patch, tree, hunk.path)) + "\n"
        if "\n" + "\n".join(hunk.new) + "\n" not in text:
            return False
    return True


def _read(patch: Path, tree: Path, path: str) -> list[str]:
    file = tree / path
    if not file.is_file():
        raise PatchError(f"{patch.name} changes {path}, which is missing in {tree}")
    return file.read_bytes().decode().split("\n")


def main() -> int:
    """Command line entry."""
    if len(sys.argv) != 2:
        print("usage: patching.py DIRECTORY", file=sys.stderr)
        return 2
    tree = Path(sys.argv[1])
    try:
        for patch in list_patches():
            if is_applied(patch, tree):
                print(f"{patch.name}: applied already")
            else:
                apply_patch(patch, tree)
                print(f"{patch.name}: applied")
    except PatchError as error:
        print(f"patching.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
