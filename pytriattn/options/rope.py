"""A user's own RoPE settings in place of the model's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytriattn._native import core
from pytriattn.errors import ContextError

__all__ = ["RopeSettings"]

_SCALING_TYPES = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class RopeSettings:
    """RoPE settings in place of the model's metadata; 0, a negative number or None leaves the model's own value.

    Attributes:
        scaling_type: ``none``, ``linear``, ``yarn`` or ``longrope`` (or llama.cpp's number for it: -1 to 3).
        freq_base: the base of the frequencies.
        freq_scale: factor on positions: 0.25 stretches the model's context by 4.
        yarn_ext_factor: YaRN's mix of extrapolation (1) and interpolation (0).
        yarn_attn_factor: YaRN's factor on rotated dimensions.
        yarn_beta_fast: YaRN's bound for fast bands.
        yarn_beta_slow: YaRN's bound for slow bands.
        yarn_orig_ctx: positions that the model was trained for before it was stretched.
    """

    scaling_type: str | int | None = None
    freq_base: float = 0.0
    freq_scale: float = 0.0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_fast: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_orig_ctx: int = 0

    def check(self) -> None:
        """Check the values.

        Raises:
            ContextError: one makes no sense; the message names it.
        """
        self._scaling_name()
        for name in ("freq_base", "freq_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ContextError(f"rope_{name} is {value}, it must be positive, or 0 for the model's own")
        for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"):
            if not math.isfinite(getattr(self, name)):
                raise ContextError(
                    f"{name} is {getattr(self, name)}, it must be a number; a negative one: the model's own"
                )
        if not 0 <= self.yarn_orig_ctx < 2**32:
            raise ContextError(f"yarn_orig_ctx is {self.yarn_orig_ctx}, it must be positive, or 0 for the model's own")

    def to_native(self) -> core.RopeOverrides:
        """Return the same settings as the C++ engine takes them."""
        return core.RopeOverrides(
            scaling=self._scaling_name(),
            freq_base=self.freq_base,
            freq_scale=self.freq_scale,
            yarn_ext_factor=self.yarn_ext_factor,
            yarn_attn_factor=self.yarn_attn_factor,
            yarn_beta_fast=self.yarn_beta_fast,
            yarn_beta_slow=self.yarn_beta_slow,
            yarn_orig_ctx=self.yarn_orig_ctx,
        )

    def _scaling_name(self) -> str:
        kind = self.scaling_type
        if kind is None or kind == -1:
            return ""
        if isinstance(kind, int) and 0 <= kind < len(_SCALING_TYPES):
            return _SCALING_TYPES[kind]
        if isinstance(kind, str) and kind in _SCALING_TYPES:
            return kind
        raise ContextError(f"rope_scaling_type is {kind!r}, it must be one of {', '.join(_SCALING_TYPES)}, or None")
