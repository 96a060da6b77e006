"""What a JSON object can hold, from the package's own classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings

__all__ = ["SCHEMA", "options_json", "to_json"]

SCHEMA = 1
"""Version of the JSON objects of the command-line tools. Within a version, fields keep their names and meaning."""


def to_json(value: object) -> Any:
    """Return `value` as dictionaries, lists, strings, numbers, booleans and None.

    Dataclasses become objects of their fields and enumerations their values. Numbers that JSON has no word for
    (infinite, not a number) become None; whatever else is unknown becomes text.
    """
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [to_json(item) for item in value]
    return str(value)


def options_json(options: CacheOptions) -> dict[str, Any]:
    """Return cache options as JSON values, under the names of schema 1."""
    return {
        "ctx": options.n_ctx,
        "budget": options.budget,
        "interval": (options.eviction or EvictionSettings(1)).interval,
        "type_k": options.type_k,
        "type_v": options.type_v,
        "parallel": options.n_seq_max,
        "n_batch": options.n_batch,
        "n_ubatch": options.n_ubatch,
        "flash_attn": options.allows_flash_attention,
        "prefill": options.prefill,
    }
