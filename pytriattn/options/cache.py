"""The settings of a context's cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pytriattn._native import core
from pytriattn._util.numbers import whole_number
from pytriattn.errors import BudgetError, ContextError
from pytriattn.gguf.types import TENSOR_TYPES
from pytriattn.options.eviction import EvictionSettings
from pytriattn.options.rope import RopeSettings

__all__ = ["CACHE_TYPES", "QUANTISED_TYPES", "CacheOptions", "cache_type", "flash_attention"]

CACHE_TYPES = core.CACHE_TYPES
QUANTISED_TYPES = core.QUANTISED_TYPES
"""Values of these types need flash attention."""


@dataclass(frozen=True)
class CacheOptions:
    """The settings of `Llama` that decide about its cache.

    Attributes:
        n_ctx: positions for each sequence; 0: those that the model was trained for.
        eviction: the budget and the other settings of eviction; None: all keys are kept.
        type_k: type of cached keys, one of `CACHE_TYPES`.
        type_v: type of cached values.
        n_seq_max: sequences, each with cells of its own.
        n_batch: tokens given to llama.cpp at once.
        n_ubatch: tokens computed at once.
        flash_attn: ``auto``, ``on`` or ``off``.
        prefill: ``chunked`` or ``full``.
        rope: RoPE settings in place of the model's own.
        n_draft: the most tokens that a step computes ahead; 0: none ever.

    Raises:
        ContextError: a value makes no sense; the message names it.
    """

    n_ctx: int = 0
    eviction: EvictionSettings | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    n_seq_max: int = 1
    n_batch: int = 2048
    n_ubatch: int = 512
    flash_attn: str = "auto"
    prefill: str = "chunked"
    rope: RopeSettings = field(default_factory=RopeSettings)
    n_draft: int = 0

    def __post_init__(self) -> None:
        """Check all values; take whole numbers of any kind, numpy's too."""
        for name in ("n_ctx", "n_seq_max", "n_batch", "n_ubatch"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), ContextError))
        for name in ("type_k", "type_v"):
            cache_type(name, getattr(self, name))
        if self.flash_attn not in ("auto", "on", "off"):
            raise ContextError(f"flash_attn is {self.flash_attn!r}, it must be 'auto', 'on' or 'off'")
        if self.prefill not in ("chunked", "full"):
            raise ContextError(f"prefill is {self.prefill!r}, it must be 'chunked' or 'full'")
        if self.n_ctx < 0:
            raise ContextError(f"n_ctx is {self.n_ctx}, it must not be negative")
        for name in ("n_batch", "n_ubatch", "n_seq_max"):
            if getattr(self, name) < 1:
                raise ContextError(f"{name} is {getattr(self, name)}, it must be at least 1")
        self.rope.check()

    def check(self) -> None:
        """Check that the options go together, as far as that needs no model.

        Raises:
            ContextError, BudgetError: they do not; the message names the value and the remedy.
        """
        if self.type_v in QUANTISED_TYPES and self.flash_attn == "off":
            raise ContextError(f"type_v={self.type_v!r} needs flash attention; use flash_attn=True or type_v='f16'")
        if self.eviction is not None and self.eviction.to_native().moves_rows and self.flash_attn == "off":
            raise BudgetError(
                f"mode={self.eviction.mode!r} moves values between cells, which needs flash attention; use "
                "flash_attn=True or mode='global'"
            )

    @property
    def budget(self) -> int | None:
        """Keys kept per layer and KV head; None: all."""
        return None if self.eviction is None else self.eviction.budget

    @property
    def allows_flash_attention(self) -> bool:
        """Whether flash attention has not been switched off."""
        return self.flash_attn != "off"

    def with_budget(self, budget: int | None) -> CacheOptions:
        """Return the same options with another budget; None: without one."""
        if budget is None:
            return replace(self, eviction=None)
        eviction = EvictionSettings(budget) if self.eviction is None else replace(self.eviction, budget=budget)
        return replace(self, eviction=eviction)

    def to_native(self, n_threads: int) -> core.DecoderParams:
        """Return the same options as the C++ engine takes them; `n_ctx` must not be 0.

        Raises:
            ContextError, BudgetError: a value makes no sense; the message names it.
        """
        return core.DecoderParams(
            n_ctx=self.n_ctx,
            n_batch=self.n_batch,
            n_ubatch=self.n_ubatch,
            n_threads=n_threads,
            n_seq_max=self.n_seq_max,
            type_k=self.type_k,
            type_v=self.type_v,
            flash_attn=self.flash_attn,
            rope=self.rope.to_native(),
            eviction=None if self.eviction is None else self.eviction.to_native(),
            full_prefill=self.prefill == "full",
            n_draft=self.n_draft,
        )

    def describe_state(self, model_sha256: str, n_cells: int) -> dict[str, Any]:
        """Return the settings that must be the same when a saved state is loaded."""
        eviction = None if self.eviction is None else self.eviction.describe_state()
        return {
            "model": model_sha256,
            "cells": n_cells,
            "n_ctx": self.n_ctx,
            "n_batch": self.n_batch,
            "n_ubatch": self.n_ubatch,
            "type_k": self.type_k,
            "type_v": self.type_v,
            "flash_attn": self.flash_attn,
            "rope": asdict(self.rope),
            "eviction": eviction,
        }


def cache_type(name: str, value: str | int) -> str:
    """Return the name of a cache type that is given by name, or by ggml's number as llama-cpp-python takes it.

    Args:
        name: the name of the setting, for the message.
        value: the type.

    Raises:
        ContextError: no cache can have it.
    """
    found = TENSOR_TYPES.get(value, ("", 0, 0))[0] if isinstance(value, int) else value
    if found not in CACHE_TYPES:
        raise ContextError(f"{name} is {value!r}, it must be one of {', '.join(CACHE_TYPES)}")
    return found


def flash_attention(value: str | bool) -> str:
    """Return ``auto``, ``on`` or ``off``.

    Raises:
        ContextError: the value is something else.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if value not in ("auto", "on", "off"):
        raise ContextError(f"flash_attn is {value!r}, it must be 'auto', True or False")
    return value
