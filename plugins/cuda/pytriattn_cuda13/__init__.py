"""The CUDA 13 backend of pytriattn: one ggml module, and how the libraries that it needs are loaded."""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from pathlib import Path

__all__ = ["preload"]

# In the order in which they need each other: (distribution, file on Linux, file on Windows).
_LIBRARIES = (
    ("nvidia-cuda-runtime", "lib/libcudart.so.13", "bin/x86_64/cudart64_13.dll"),
    ("nvidia-cublas", "lib/libcublasLt.so.13", "bin/x86_64/cublasLt64_13.dll"),
    ("nvidia-cublas", "lib/libcublas.so.13", "bin/x86_64/cublas64_13.dll"),
)
_loaded: list[ctypes.CDLL] = []


def preload() -> None:
    """Load NVIDIA's libraries from their wheels, by path; the module then finds them loaded.

    Raises:
        ImportError: a wheel is missing, or its library cannot be loaded. The message has the remedy.
    """
    remedy = "install NVIDIA's runtime: pip install 'cuda-toolkit[cublas,cudart]==13.0.*'"
    for name, linux, windows in _LIBRARIES:
        file = f"nvidia/cu13/{windows if sys.platform == 'win32' else linux}"
        try:
            path = Path(str(importlib.metadata.distribution(name).locate_file(file))).resolve()
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"{name} is not installed; {remedy}") from None
        try:
            _loaded.append(ctypes.CDLL(str(path)))
        except OSError as error:
            raise ImportError(f"{path} cannot be loaded ({error}); {remedy}") from None
