"""What is evicted, and when."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._util.numbers import whole_number
from pytriattn.errors import BudgetError

__all__ = ["DEFAULT_MODE", "LEAST_WINDOW", "MODES", "Chooser", "EvictionSettings", "default_window"]

DEFAULT_MODE = "fitted"
LEAST_WINDOW = 64
MODES = core.MODES
"""The modes that choose by themselves; ``custom`` asks a function."""
Chooser = Callable[[core.EvictionView], Sequence[npt.NDArray[np.bool_]]]
"""Returns for each layer of a view which keys stay, bool [n_head_kv, n_keys]."""


def default_window(mode: str, budget: int) -> int:
    """Return how many of the newest keys are kept where nobody says: three tenths of the budget in mode ``fitted``,
    but at least 64, as in all other modes. Ordinary text needs them, and facts lose little by it (docs/quality.md).
    """
    return max(LEAST_WINDOW, budget * 3 // 10) if mode == DEFAULT_MODE else LEAST_WINDOW


@dataclass(frozen=True)
class EvictionSettings:
    """What is evicted from a cache, and when; the names are those of `Llama`.

    Attributes:
        budget: keys kept per layer and KV head.
        mode: what keeps its own set of keys.
        interval: tokens between evictions.
        window: the newest keys, never evicted; None: `default_window`.
        n_sink: the first keys, never evicted.
        seed: of mode ``random``.
        scale_budget_by_attention: raise the budget where few layers have full attention.
        chooser: what mode ``custom`` asks; see `Llama`.
        key_score: what goes into the score of mode ``fitted``; None: all of it.
        reread: see `Llama`.

    Raises:
        BudgetError: a value is no whole number.
    """

    budget: int
    mode: str = DEFAULT_MODE
    interval: int = 128
    window: int = None  # type: ignore[assignment]  # then it is `default_window`
    n_sink: int = 4
    seed: int = 0
    scale_budget_by_attention: bool = False
    chooser: Chooser | None = None
    key_score: core.KeyScoreOptions | None = None
    reread: bool = False

    def __post_init__(self) -> None:
        """Take whole numbers of any kind, numpy's too."""
        if self.window is None:
            object.__setattr__(
                self, "window", default_window(self.mode, whole_number("budget", self.budget, BudgetError))
            )
        for name in ("budget", "interval", "window", "n_sink", "seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), BudgetError))

    def check_prompt(self, n_protected: int) -> None:
        """Check that a protected prompt of this many tokens fits.

        Raises:
            BudgetError: it does not.
        """
        core.check_protected_prompt(n_protected, self.to_native())

    @property
    def least_budget(self) -> int:
        """The smallest budget with these sinks and this window: both, and one key to choose."""
        return core.least_budget(self.window, self.n_sink)

    @property
    def moves_rows(self) -> bool:
        """Whether heads keep different keys, for which rows are moved."""
        return core.moves_rows(self.mode)

    @property
    def needs_scores(self) -> bool:
        """Whether keys are scored, for which there have to be statistics."""
        return core.needs_scores(self.mode)

    def to_native(self) -> core.EvictionConfig:
        """Return the same settings as the C++ engine takes them.

        Raises:
            BudgetError: they do not fit together; the message names the value.
        """
        # the engine must not own the chooser: Python's collector could not see that it refers to what holds the engine
        settings = weakref.ref(self)

        def ask(view: core.EvictionView) -> Sequence[npt.NDArray[np.bool_]]:
            current = settings()
            assert current is not None and current.chooser is not None  # the session holds the settings
            return current.chooser(view)

        return core.EvictionConfig(
            mode=self.mode,
            budget=self.budget,
            interval=self.interval,
            window=self.window,
            n_sink=self.n_sink,
            seed=self.seed,
            chooser=None if self.chooser is None else ask,
            reread=self.reread,
            key_score=self.key_score or core.KeyScoreOptions(),
        )

    def describe_state(self) -> dict[str, Any]:
        """Return all that has to be the same where a saved state is loaded, as JSON values."""
        # the budget is what came of scaling; the chooser is code, whose choices are in the state
        left_out = ("scale_budget_by_attention", "chooser", "key_score")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
