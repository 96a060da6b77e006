"""Tests of every tiny model take minutes: those of a few that stand for the others are quick, the rest are marked as
slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

TYPICAL = frozenset(
    {
        *("llama", "qwen3", "command-r", "gemma3", "gpt-oss"),  # dense, norms, sliding layers, experts
        *("qwen35", "falcon-h1", "deepseek2", "kimi-linear"),  # recurrent layers, latent attention
        *("gemma4", "nanbeige", "glm4moe"),  # shared caches, prediction layers
        *("phi3", "bloom", "gpt2", "plm"),  # positions, and a model without flash attention
    }
)
"""One or two models for each trait."""


def marked(values: Iterable[Any], is_quick: Callable[[Any], bool] = TYPICAL.__contains__) -> list[Any]:
    """Return the values of one parameter, or tuples of values of several, with a mark at those that are not quick."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=() if is_quick(value) else pytest.mark.slow
        )
        for value in values
    ]
