"""llama.cpp's log lines through Python's ``logging``, under the logger ``pytriattn.llama_cpp``.

Nothing is printed unless the application configures logging or asks with ``verbose=True``.
"""

from __future__ import annotations

import logging

from pytriattn._native import core

__all__ = ["enable_verbose", "forward_llama_log", "logger"]

logger = logging.getLogger("pytriattn")
logger.addHandler(logging.NullHandler())
_llama_logger = logger.getChild("llama_cpp")
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}


def forward_llama_log() -> None:
    """Hand what llama.cpp has logged so far to ``logging``.

    Its errors are passed on as warnings: those that matter to the caller are raised as exceptions as well.
    """
    for line in core.take_log():
        level = min(_LEVELS.get(line.level, logging.DEBUG), logging.WARNING)
        _llama_logger.log(level, "%s", line.text.decode("utf-8", errors="replace").rstrip())


def enable_verbose() -> None:
    """Show what is logged on standard error, once."""
    if not any(isinstance(handler, logging.StreamHandler) for handler in logger.handlers):
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
