"""The HIP backend of pytriattn: one ggml module."""

from __future__ import annotations

__all__ = ["preload"]


def preload() -> None:
    """Do nothing: the module finds the system's ROCm by itself."""
