"""Checks of `Llama`'s settings, before a model is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytriattn._native import core
from pytriattn.errors import BudgetError, ContextError
from pytriattn.gguf_info import gguf_info
from pytriattn.kv_memory import QUANTISED_TYPES
from pytriattn.model_file import model_identity
from pytriattn.preflight import PreflightSettings, effective_settings, preflight, raise_failures
from pytriattn.stats import TriAttentionStats

__all__ = ["EvictionSettings", "check_context_settings", "flash_attention"]


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
        self, path: Path, wanted: PreflightSettings, stats: TriAttentionStats | None, source: str
    ) -> EvictionSettings:
        """Check the settings against the metadata of a model file and against statistics; return them with the budget scaled.

        Args:
            path: of the model.
            wanted: the settings, as preflight takes them.
            stats: of the model, if they are given.
            source: what messages call the statistics.

        Raises:
            StatsError, UnsupportedModelError, BudgetError, ContextError: they do not fit; the message says what and why.
            ModelLoadError: the file cannot be read.
        """
        info = gguf_info(path)
        identity = model_identity(path, {"general.name": info.name, "general.architecture": info.architecture})
        if stats is not None:
            stats.check_model(identity, source)
        raise_failures(preflight(info, wanted, stats, identity))
        budget = effective_settings(info, wanted).cache.budget
        return replace(self, budget=self.budget if budget is None else budget)

    def check_prompt(self, n_protected: int) -> None:
        """Check that a protected prompt of this many tokens (0: none) fits.

        Raises:
            BudgetError: it does not.
        """
        if n_protected and n_protected + self.window + 1 > self.budget:
            raise BudgetError(
                f"the protected prompt of {n_protected} tokens and a window of {self.window} do not fit the budget of "
                f"{self.budget}; raise the budget or use protect_prompt=False"
            )

    def to_native(self) -> Any:
        """Return the same settings as the C++ engine takes them."""
        return core.EvictionConfig(**asdict(self))


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


def check_context_settings(*, prefill: str, n_ctx: int, type_v: str, flash: str) -> None:
    """Check what can be checked before a model is loaded.

    Raises:
        ContextError: a value makes no sense.
    """
    if prefill not in ("chunked", "full"):
        raise ContextError(f"prefill is {prefill!r}, it must be 'chunked' or 'full'")
    if n_ctx < 0:
        raise ContextError(f"n_ctx is {n_ctx}, it must not be negative")
    if type_v in QUANTISED_TYPES and flash == "off":
        raise ContextError(f"type_v={type_v!r} needs flash attention; use flash_attn=True or type_v='f16'")
