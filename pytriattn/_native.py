"""The extension module with its backends loaded. Everything else imports ``core`` from here."""

from __future__ import annotations

from pathlib import Path

from pytriattn import _core as core

__all__ = ["core"]

# By path, and from our own folder alone: never a stranger's library from the working directory.
core.load_backends(str(Path(str(core.__file__)).resolve().parent / "lib"))
