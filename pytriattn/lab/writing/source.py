"""The ordinary text that tasks are made with: Python's own manual, which every Python brings along, or the user's
file.
"""

from __future__ import annotations

import hashlib
import pydoc_data.topics
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pytriattn.lab.documents import Tokens
from pytriattn.lab.errors import LabError

__all__ = ["SourceText", "Tokenize"]

Tokenize = Callable[[str], list[int]]
"""Token ids of a text, without the tokens that begin and end one."""

LEAST_SENTENCES = 200
_SENTENCE = re.compile(r"[A-Z][^.!?\n]{30,220}[.!?](?=\s)")


@dataclass(frozen=True)
class SourceText:
    """A text to cut passages and sentences from. Its first half serves choosing, its second half reporting.

    Attributes:
        text: the text.
        name: the name of the file, or of another source.
    """

    text: str
    name: str

    @staticmethod
    def load(path: str | Path | None) -> SourceText:
        """Read a text file; None: Python's manual.

        Raises:
            LabError: it cannot be read, or has too little prose.
        """
        if path is None:
            topics = pydoc_data.topics.topics
            source = SourceText("\n\n".join(topics[name] for name in sorted(topics)), "Python's manual")
        else:
            try:
                source = SourceText(Path(path).read_text(encoding="utf-8"), Path(path).name)
            except OSError as error:
                raise LabError(f"the text '{path}' cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise LabError(f"the text '{path}' is not UTF-8: {error}") from error
        if min(len(source.half(name).sentences) for name in ("choose", "report")) < LEAST_SENTENCES:
            raise LabError(
                f"the text '{source.name}' has fewer than {LEAST_SENTENCES} sentences in a half; give a longer one "
                f"with --text"
            )
        return source

    @property
    def sha256(self) -> str:
        """SHA-256 of the UTF-8 bytes."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def half(self, name: str) -> SourceText:
        """Return the half for ``choose`` or ``report``."""
        middle = len(self.text) // 2
        return SourceText(self.text[:middle] if name == "choose" else self.text[middle:], self.name)

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences of ordinary length, without line breaks."""
        flat = re.sub(r"(?<!\n)\n(?!\n)", " ", self.text)
        return [re.sub(r"\s+", " ", found) for found in _SENTENCE.findall(flat + "\n")]

    def passage(self, tokenize: Tokenize, rng: np.random.Generator, n_tokens: int) -> Tokens:
        """Return `n_tokens` of running text from a random paragraph on.

        Raises:
            LabError: the text is too short for that.
        """
        starts = [match.end() for match in re.finditer(r"\n\s*\n", self.text)] or [0]
        for start in rng.permutation(len(starts))[:20]:
            size = 8 * n_tokens
            while True:
                piece = self.text[starts[start] : starts[start] + size]
                tokens = tokenize(piece)
                if len(tokens) >= n_tokens:
                    return np.array(tokens[:n_tokens], dtype=np.int32)
                if starts[start] + size >= len(self.text):
                    break
                size *= 2
        raise LabError(
            f"the text '{self.name}' has no passage of {n_tokens} tokens in each half; give a longer one with "
            f"--text, or fewer --tokens"
        )
