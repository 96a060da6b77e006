"""How the next token is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core

__all__ = ["SamplingParams"]


@dataclass(frozen=True)
class SamplingParams:
    """Settings of llama.cpp's samplers, in the order in which they apply.

    Attributes:
        repeat_penalty: divides the logits of the last `penalty_last_n` tokens; 1: off.
        frequency_penalty: subtracted for each time that a token was among them; 0: off.
        presence_penalty: subtracted once if a token was among them; 0: off.
        penalty_last_n: how far back penalties look; 0: off, -1: everywhere.
        top_k: keep the k likeliest tokens; 0: all.
        top_p: keep the likeliest tokens that have this probability together; 1: all.
        min_p: drop tokens less likely than this fraction of the likeliest one; 0: none.
        temperature: 0 always takes the likeliest token.
        seed: None: a new one each time.
        ignore_eos: never draw a token that ends the text.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    ignore_eos: bool = False

    @classmethod
    def checked(cls, **values: Any) -> SamplingParams:
        """Return the settings with these values.

        Raises:
            TypeError: a name is unknown.
            ValueError: a value makes no sense.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise TypeError(f"unknown sampling parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        params = cls(**values)
        params._check()
        return params

    def _check(self) -> None:
        limits = {
            "temperature": (0.0, math.inf),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "repeat_penalty": (1e-6, 1e6),
            "frequency_penalty": (-math.inf, math.inf),
            "presence_penalty": (-math.inf, math.inf),
            "penalty_last_n": (-1, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not math.isfinite(value)
                or not low <= value <= high
            ):
                raise ValueError(f"{name} is {value}, it must be a number from {low:g} to {high:g}")

        for name in ("top_k", "penalty_last_n", "seed"):
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if not isinstance(value, (int, np.integer)) or not -(2**31) <= value < 2**32:
                raise ValueError(f"{name} is {value!r}, it must be a whole number")

    def make_sampler(self, model: Any, prompt: npt.NDArray[np.int32], n_ctx: int) -> Any:
        """Return a ``_core.Sampler`` that knows the prompt's last tokens for its penalties."""
        looks_back = n_ctx if self.penalty_last_n < 0 else self.penalty_last_n
        sampler = core.Sampler(
            model=model,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            penalty_last_n=looks_back,
            seed=core.RANDOM_SEED if self.seed is None else self.seed & 0xFFFFFFFF,
            ignore_eos=self.ignore_eos,
        )
        for token in prompt[-looks_back:] if looks_back else []:
            sampler.accept(int(token))
        return sampler
