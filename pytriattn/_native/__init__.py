"""The compiled module with the package's own backends loaded. Everything else imports ``core`` from here."""

from pytriattn._native.loader import backends, core

__all__ = ["backends", "core"]
