"""What a context has read, as bytes or a file, to go on with later."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._util.atomic_file import write_atomically
from pytriattn._util.numbers import whole_number
from pytriattn.errors import StateError

__all__ = ["SavedState", "read_state", "write_state"]

MAGIC = b"PTASTATE"
VERSION = 5
_DIGEST_BYTES = 32
_N_PARTS = 3


@dataclass(frozen=True)
class SavedState:
    """A saved context.

    Attributes:
        made_with: model, version of llama.cpp and settings; a state fits no others.
        tokens: int32 [n], what has been read.
        cells: keys, values and recurrent states, as the engine writes them.
        origins: where each head's keys come from, as the engine writes it.
        n_past: positions taken.
        n_protected: positions that are never evicted.
    """

    made_with: dict[str, Any]
    tokens: npt.NDArray[np.int32]
    cells: bytes
    origins: bytes
    n_past: int
    n_protected: int

    def to_native(self) -> core.SavedSequence:
        """Return what the engine puts back into a context."""
        return core.SavedSequence(
            cells=self.cells, origins=self.origins, n_tokens=self.n_past, n_protected=self.n_protected
        )

    def to_bytes(self) -> bytes:
        """Return the state as bytes, with a checksum."""
        parts = (self.tokens.astype("<i4").tobytes(), self.cells, self.origins)
        header = {
            "made_with": self.made_with,
            "sizes": [len(part) for part in parts],
            "n_past": self.n_past,
            "n_protected": self.n_protected,
        }
        text = json.dumps(header, sort_keys=True).encode()
        body = b"".join((MAGIC, VERSION.to_bytes(4, "little"), len(text).to_bytes(4, "little"), text, *parts))
        return body + hashlib.sha256(body).digest()

    @staticmethod
    def from_bytes(data: bytes, source: str = "this state") -> SavedState:
        """Return the state that bytes stand for.

        Raises:
            StateError: they are none, damaged, or of another version.
        """
        start = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC or len(data) < start + _DIGEST_BYTES:
            raise StateError(f"{source} is no saved state of pytriattn")
        version = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
        if version != VERSION:
            raise StateError(f"{source} has the version {version}, this pytriattn reads {VERSION}; read the text again")
        if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
            raise StateError(f"{source} is damaged: its contents do not match its checksum; read the text again")
        try:
            return _parse_body(data, start)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # the checksum is right, so whoever wrote it meant it
            raise StateError(f"{source} is no state that pytriattn writes: {error!r}; read the text again") from error

    def check(self, made_with: dict[str, Any], source: str = "this state") -> None:
        """Check that the state fits a context.

        Raises:
            StateError: it was made with another model, version or other settings; the message names what differs.
        """
        names = sorted(set(made_with) | set(self.made_with))
        different = [n for n in names if self.made_with.get(n) != made_with.get(n)]
        if different:
            what = "; ".join(f"{n} was {self.made_with.get(n)!r} and is {made_with.get(n)!r}" for n in different)
            raise StateError(f"{source} does not fit: {what}; load it as it was made, or read the text again")


def _parse_body(data: bytes, start: int) -> SavedState:
    """Return the state whose header begins at `start`; raises the errors of Python for whatever is not as written."""
    end = len(data) - _DIGEST_BYTES
    at = start + int.from_bytes(data[start - 4 : start], "little")
    header = json.loads(data[start : min(at, end)])
    sizes = [whole_number("a size", size, ValueError) for size in header["sizes"]]
    if len(sizes) != _N_PARTS or min(sizes) < 0 or at + sum(sizes) != end:
        raise ValueError(f"parts of {sizes} bytes do not make up its length")
    parts = []
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    tokens = np.frombuffer(parts[0], dtype="<i4").astype(np.int32)
    n_past = whole_number("n_past", header["n_past"], ValueError)
    if n_past != len(tokens):
        raise ValueError(f"{len(tokens)} tokens do not take {n_past} positions")
    n_protected = whole_number("n_protected", header["n_protected"], ValueError)
    return SavedState(dict(header["made_with"]), tokens, parts[1], parts[2], n_past, n_protected)


def write_state(state: SavedState, path: str | os.PathLike[str]) -> None:
    """Write a state to a file, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    write_atomically(path, state.to_bytes())


def read_state(state: bytes | str | os.PathLike[str]) -> tuple[SavedState, str]:
    """Return a state from bytes or a file, and what to call it in messages.

    Raises:
        StateError: it is missing, damaged, or of another version.
    """
    if isinstance(state, bytes):
        return SavedState.from_bytes(state), "this state"
    path = Path(state).expanduser()
    source = f"the state '{path}'"
    try:
        return SavedState.from_bytes(path.read_bytes(), source), source
    except OSError as error:
        raise StateError(f"{source} cannot be read: {error.strerror}") from error


def context_state(context: core.Context, tokens: list[int], made_with: dict[str, Any]) -> SavedState:
    """Return the state of a context that has read `tokens`."""
    saved = context.save()
    return SavedState(
        {**made_with, "llama.cpp": core.LLAMA_CPP_COMMIT},
        np.array(tokens, dtype=np.int32),
        saved.cells,
        saved.origins,
        saved.n_tokens,
        saved.n_protected,
    )
