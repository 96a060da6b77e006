"""What is raised where there is not enough memory for a model or its cache."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from pytriattn._util.text import format_bytes
from pytriattn.errors import CacheMemoryError, ContextError, ModelLoadError, ModelMemoryError
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CacheOptions

__all__ = ["telling_cache_memory", "telling_model_memory"]

# llama.cpp has one error for all that goes wrong, and says in its log what it was
_NO_MEMORY = re.compile(
    r"insufficient memory|failed to allocate|unable to allocate|cannot allocate|out of memory", re.I
)


@contextlib.contextmanager
def telling_model_memory(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `ModelMemoryError` if the block fails for lack of memory.

    Raises:
        ModelMemoryError: there is not enough memory for the weights.
    """
    try:
        yield
    except MemoryError as error:
        raise ModelMemoryError(_model_message(path)) from error
    except ModelLoadError as error:
        if _NO_MEMORY.search(str(error)):
            raise ModelMemoryError(_model_message(path)) from error
        raise


@contextlib.contextmanager
def telling_cache_memory(path: str | os.PathLike[str], options: CacheOptions) -> Iterator[None]:
    """Raise `CacheMemoryError` if the block fails for lack of memory.

    Raises:
        CacheMemoryError: there is not enough memory for a cache with these options.
    """
    try:
        yield
    except MemoryError as error:
        raise CacheMemoryError(_cache_message(path, options)) from error
    except ContextError as error:
        if _NO_MEMORY.search(str(error)):
            raise CacheMemoryError(_cache_message(path, options)) from error
        raise


def _model_message(path: str | os.PathLike[str]) -> str:
    size = format_bytes(os.stat(path).st_size)
    return (
        f"there is not enough memory for the model '{os.fspath(path)}', a file of {size}; use a smaller model or a "
        "stronger quantisation, or raise the limit of this process (ulimit -v)"
    )


def _cache_message(path: str | os.PathLike[str], options: CacheOptions) -> str:
    size = format_bytes(gguf_info(path).cache_bytes(options).total)
    asked = f"n_ctx={options.n_ctx}"
    remedy = "lower n_ctx, or set a budget"
    if options.eviction is not None:
        asked += f", budget={options.eviction.budget}"
        remedy = "lower budget or n_batch"
    return (
        f"there is not enough memory for a cache of {size} ({asked}, type_k={options.type_k!r}, "
        f"type_v={options.type_v!r}) and for computing with it; {remedy}, or use smaller types (type_k, type_v)"
    )
