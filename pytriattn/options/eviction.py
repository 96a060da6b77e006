"""What is evicted, and when."""

from __future__ import annotations

from dataclasses import dataclass

from pytriattn._native import core
from pytriattn._util.numbers import whole_number
from pytriattn.errors import BudgetError

__all__ = ["MODES", "EvictionSettings"]

MODES = ("per_layer_head", "per_head", "per_layer", "global", "recent", "random")


@dataclass(frozen=True)
class EvictionSettings:
    """What is evicted from a cache, and when; the names are those of `Llama`.

    Attributes:
        budget: keys kept per layer and KV head.
        mode: what keeps its own set of keys.
        interval: tokens between evictions.
        window: the newest keys, never evicted.
        n_sink: the first keys, never evicted.
        seed: of mode ``random``.
        scale_budget_by_attention: raise the budget where few layers have full attention.

    Raises:
        BudgetError: a value is no whole number.
    """

    budget: int
    mode: str = "per_layer_head"
    interval: int = 128
    window: int = 64
    n_sink: int = 4
    seed: int = 0
    scale_budget_by_attention: bool = False

    def __post_init__(self) -> None:
        """Take whole numbers of any kind, numpy's too."""
        for name in ("budget", "interval", "window", "n_sink", "seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), BudgetError))

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
    def least_budget(self) -> int:
        """The smallest budget with these sinks and this window: both, and one key to choose."""
        return self.n_sink + self.window + 1

    @property
    def moves_rows(self) -> bool:
        """Whether heads keep different keys, for which rows are moved."""
        return self.mode.startswith("per_")

    @property
    def needs_scores(self) -> bool:
        """Whether keys are scored, for which there have to be statistics."""
        return self.moves_rows or self.mode == "global"

    def to_native(self) -> core.EvictionConfig:
        """Return the same settings as the C++ engine takes them.

        Raises:
            BudgetError: they do not fit together; the message names the value.
        """
        return core.EvictionConfig(
            mode=self.mode,
            budget=self.budget,
            interval=self.interval,
            window=self.window,
            n_sink=self.n_sink,
            seed=self.seed,
        )
