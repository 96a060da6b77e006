"""The extension module with the package's own backends loaded. Everything else imports ``core`` from here."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pytriattn._native.backend_modules import Backends

__all__ = ["backends", "core"]


@contextlib.contextmanager
def _own_symbols_first() -> Iterator[None]:
    """Import an extension so that its symbols are our own libraries', whatever else the process has loaded.

    Another package's ggml that was loaded with RTLD_GLOBAL would be found before ours. Only where there is one: the
    flag also passes by a malloc that was put in with LD_PRELOAD.
    """
    deepbind = getattr(os, "RTLD_DEEPBIND", 0)
    if not deepbind or not hasattr(ctypes.CDLL(None), "ggml_backend_load"):
        yield
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | deepbind)
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


if sys.platform == "win32":  # which has no RUNPATH
    os.add_dll_directory(str(Path(__file__).resolve().parent.parent / "lib"))

with _own_symbols_first():
    from pytriattn import _core as core

backends = Backends(core, Path(str(core.__file__)).resolve().parent / "lib")
backends.load_base()
