"""Integrations with other programs, one module each. Importing one without its package tells what to install."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["required"]


@contextlib.contextmanager
def required(package: str, extra: str) -> Iterator[None]:
    """Turn a failed import of `package` into an error that names the command to install it.

    Raises:
        ImportError: it, or a package that it needs, is not there.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"this needs the package {package}; run: pip install 'pytriattn[{extra}]'") from error
