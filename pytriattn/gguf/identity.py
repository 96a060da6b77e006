"""What a model file is, before llama.cpp loads it: early checks and the identity that statistics are tied to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pytriattn._native import core
from pytriattn.errors import ModelLoadError

__all__ = ["ModelIdentity", "check_model_file", "model_identity"]

GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class ModelIdentity:
    """The identity of the model that a file holds.

    ``sha256`` covers every metadata key and value and every tensor's name, type and shape, not the weights' values, so
    that it takes no time even for the largest files.
    """

    name: str
    architecture: str
    sha256: str

    def __str__(self) -> str:
        """Short form for messages."""
        return f"{self.name or 'unnamed'} ({self.architecture}, {self.sha256[:12]})"


def check_model_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` if a GGUF file starts there.

    Raises:
        ModelLoadError: it is missing, a folder, unreadable, empty, or no GGUF file.
    """
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise ModelLoadError(f"'{file}' is a folder; give the path of a .gguf file")
        with file.open("rb") as stream:
            magic = stream.read(4)
    except FileNotFoundError:
        raise ModelLoadError(f"the model '{file}' does not exist") from None
    except OSError as error:
        raise ModelLoadError(f"the model '{file}' cannot be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        what = "is empty" if not magic else f"is not a GGUF file (it starts with {magic!r})"
        raise ModelLoadError(f"'{file}' {what}; convert the model to GGUF, or download it again")
    return file


def model_identity(path: str | os.PathLike[str]) -> ModelIdentity:
    """Return the identity of the GGUF file at `path`.

    Raises:
        ModelLoadError: the file cannot be read.
    """
    file = core.describe_gguf(path)
    return ModelIdentity(file.name, file.architecture, hashlib.sha256(file.content).hexdigest())
