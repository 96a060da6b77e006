"""Files that hold a projector: the encoder of images that is published beside a vision model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pytriattn.errors import ModelLoadError
from pytriattn.gguf.identity import check_model_file, model_identity

__all__ = ["ProjectorFile", "check_projector"]


class ProjectorFile(NamedTuple):
    """A file that holds a projector.

    Attributes:
        path: the file.
        sha256: which it is, as `ModelIdentity.sha256`.
    """

    path: Path
    sha256: str


def check_projector(path: Path) -> ProjectorFile:
    """Return the projector that a file holds, before a model is loaded.

    Raises:
        ModelLoadError: it is missing, damaged, or a model of another kind.
    """
    identity = model_identity(check_model_file(path))
    if identity.architecture != "clip":
        raise ModelLoadError(
            f"'{path}' is a model of the architecture {identity.architecture!r}, not an encoder of images; give the "
            "file that was published beside the model, often called mmproj-….gguf"
        )
    return ProjectorFile(path, identity.sha256)
