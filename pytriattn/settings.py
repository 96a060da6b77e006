"""`Llama`'s settings: checked before a model is loaded, and made into a context afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pytriattn._native import core
from pytriattn.errors import BudgetError, ContextError
from pytriattn.gguf_types import TENSOR_TYPES
from pytriattn.kv_memory import CACHE_TYPES, QUANTISED_TYPES
from pytriattn.memory import CacheOptions
from pytriattn.model_file import ModelIdentity
from pytriattn.model_info import ModelInfo
from pytriattn.preflight import PreflightSettings, effective_settings, preflight, raise_failures
from pytriattn.rope import RopeSettings
from pytriattn.stats import TriAttentionStats

__all__ = ["ContextSettings", "EvictionSettings", "cache_type", "check_rpc_servers", "flash_attention"]


@dataclass(frozen=True)
class EvictionSettings:
    """What is evicted, and when; see `Llama`."""

    budget: int
    mode: str
    interval: int
    window: int
    n_sink: int
    seed: int

    def check(self, flash: str) -> None:
        """Check the settings against each other and against flash attention (``auto``, ``on`` or ``off``).

        Raises:
            BudgetError: they do not fit together; the message names the value.
        """
        if self.to_native().moves_rows and flash == "off":
            raise BudgetError(
                f"mode={self.mode!r} moves values between cells, which needs flash attention; "
                "use flash_attn=True or mode='global'"
            )

    def fitting(
        self, info: ModelInfo, identity: ModelIdentity, wanted: PreflightSettings, stats: TriAttentionStats | None
    ) -> EvictionSettings:
        """Check the settings against the metadata of a model file and against statistics; return them with the budget scaled.

        Args:
            info: the model.
            identity: which model file it is.
            wanted: the settings, as preflight takes them.
            stats: of the model, if they are given.

        Raises:
            StatsError, UnsupportedModelError, BudgetError, ContextError: they do not fit; the message says what and why.
        """
        raise_failures(preflight(info, wanted, stats, identity))
        budget = effective_settings(info, wanted).cache.budget
        return replace(self, budget=self.budget if budget is None else budget)

    def check_prompt(self, n_protected: int) -> None:
        """Check that a protected prompt of this many tokens fits.

        Raises:
            BudgetError: it does not.
        """
        if n_protected + self.window + 1 > self.budget:
            raise BudgetError(
                f"the protected prompt of {n_protected} tokens and a window of {self.window} do not fit the budget of "
                f"{self.budget}; raise the budget or use protect_prompt=False"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether keys are scored, for which there have to be statistics."""
        return self.to_native().needs_scores

    def to_native(self) -> core.EvictionConfig:
        """Return the same settings as the C++ engine takes them."""
        return core.EvictionConfig(**asdict(self))


@dataclass(frozen=True)
class ContextSettings:
    """How a context is made; see `Llama`. ``flash`` is ``auto``, ``on`` or ``off``."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    type_k: str
    type_v: str
    flash: str
    prefill: str
    rope: RopeSettings

    def check(self) -> None:
        """Check what can be checked before a model is loaded.

        Raises:
            ContextError: a value makes no sense.
        """
        if self.prefill not in ("chunked", "full"):
            raise ContextError(f"prefill is {self.prefill!r}, it must be 'chunked' or 'full'")
        if self.n_ctx < 0:
            raise ContextError(f"n_ctx is {self.n_ctx}, it must not be negative")
        if self.type_v in QUANTISED_TYPES and self.flash == "off":
            raise ContextError(f"type_v={self.type_v!r} needs flash attention; use flash_attn=True or type_v='f16'")
        self.rope.check()

    def cache_options(self, eviction: EvictionSettings) -> CacheOptions:
        """Return what decides about the memory of the caches under a budget."""
        return CacheOptions(
            ctx=self.n_ctx,
            budget=eviction.budget,
            interval=eviction.interval,
            type_k=self.type_k,
            type_v=self.type_v,
            parallel=self.n_seq_max,
            n_batch=self.n_batch,
            n_ubatch=self.n_ubatch,
            flash_attn=self.flash != "off",
            prefill=self.prefill,
        )

    def make_context(
        self, model: core.Model, n_threads: int, eviction: EvictionSettings | None, stats: TriAttentionStats | None
    ) -> core.Context:
        """Return a context of a model. Without `eviction` the statistics are not used.

        Raises:
            ContextError: a cache of this size or these types cannot be made.
            UnsupportedModelError: nothing can be evicted from this model's cache.
        """
        return core.Context(
            model=model,
            n_ctx=self.n_ctx,
            n_batch=self.n_batch,
            n_ubatch=self.n_ubatch,
            n_seq_max=self.n_seq_max,
            n_threads=n_threads,
            type_k=self.type_k,
            type_v=self.type_v,
            flash_attn=self.flash,
            rope=self.rope.to_native(),
            eviction=None if eviction is None else eviction.to_native(),
            full_prefill=self.prefill == "full",
            stats=None if eviction is None or stats is None else stats.to_native(),
        )

    def made_with(self, identity: ModelIdentity, n_cells: int, eviction: EvictionSettings | None) -> dict[str, Any]:
        """Return all that has to be the same where a saved state is loaded."""
        return {
            "model": identity.sha256,
            "cells": n_cells,
            "n_ctx": self.n_ctx,
            "n_batch": self.n_batch,
            "n_ubatch": self.n_ubatch,
            "type_k": self.type_k,
            "type_v": self.type_v,
            "flash_attn": self.flash,
            "rope": asdict(self.rope),
            "eviction": None if eviction is None else asdict(eviction),
        }


def cache_type(value: str | int) -> str:
    """Return the name of a cache type that is given by name, or by ggml's number as llama-cpp-python takes it.

    Raises:
        ContextError: no cache can have it.
    """
    name = TENSOR_TYPES.get(value, ("", 0, 0))[0] if isinstance(value, int) else value
    if name not in CACHE_TYPES:
        raise ContextError(f"cache type {value!r} is unknown; use one of {', '.join(CACHE_TYPES)}")
    return name


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


def check_rpc_servers(servers: Sequence[str] | None) -> list[str]:
    """Return the servers as a list, each ``host:port``.

    Raises:
        ContextError: one has another form, or is named twice.
    """
    if isinstance(servers, str):
        raise ContextError(f"rpc_servers is {servers!r}, it must be a list: rpc_servers=[{servers!r}]")
    result = list(servers or [])
    for server in result:
        host, _, port = server.rpartition(":") if isinstance(server, str) else ("", "", "")
        if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
            raise ContextError(f"rpc_servers has {server!r}, it must be 'host:port' with a port from 1 to 65535")
        if result.count(server) > 1:
            raise ContextError(f"rpc_servers names {server!r} twice")
    return result
