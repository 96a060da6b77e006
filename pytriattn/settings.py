"""Checks of `Llama`'s settings that need no model, and the budget's scaling on hybrids."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pytriattn._native import core
from pytriattn.errors import BudgetError, ContextError

__all__ = ["EvictionSettings", "check_context_settings", "flash_attention", "scaled_budget"]

_V_TYPES_THAT_NEED_FLASH_ATTENTION = ("q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


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
    if type_v in _V_TYPES_THAT_NEED_FLASH_ATTENTION and flash == "off":
        raise ContextError(f"type_v={type_v!r} needs flash attention; use flash_attn=True or type_v='f16'")


def scaled_budget(model: Any, budget: int, n_ctx: int) -> int:
    """Return the budget whose fraction b of `n_ctx` is raised to 1 - (1 - b) * n_attention / n_layers.

    The other layers (sliding, recurrent) forget by themselves, so those with full attention may be all that remembers.
    """
    probe = core.Context(model=model, n_ctx=256)
    n_attention = len(probe.layers)
    probe.close()
    kept = min(1.0, budget / n_ctx)
    n_layers: int = model.n_layer
    return max(budget, round(n_ctx * (1 - (1 - kept) * n_attention / n_layers)))
