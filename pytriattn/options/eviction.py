"""What is evicted, and when."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._util.numbers import whole_number
from pytriattn.errors import BudgetError, BudgetWarning

__all__ = ["DEFAULT_MODE", "MODES", "USUAL_WINDOW", "Chooser", "EvictionSettings", "KeyScoreOptions", "default_window"]

DEFAULT_MODE = "fitted"
USUAL_WINDOW = 64
_LEAST_WINDOW = 32  # in mode ``fitted``
MODES = core.MODES
"""The modes that choose by themselves; ``custom`` asks a function."""
Chooser = Callable[[core.EvictionView], Sequence[npt.NDArray[np.bool_]]]
"""Returns for each layer of a view which keys stay, bool [n_head_kv, n_keys]."""


def default_window(mode: str, budget: int) -> int:
    """Return the default window: 64 keys, and in mode ``fitted`` a quarter of the budget, but at least 32. Ordinary
    text needs them, and facts lose little by it (docs/quality.md).
    """
    return max(_LEAST_WINDOW, budget // 4) if mode == DEFAULT_MODE else USUAL_WINDOW


_BEST = core.KeyScoreOptions()  # the engine knows what was found best


@dataclass(frozen=True)
class KeyScoreOptions:
    """The parts of the score of mode ``fitted``: the attention that a key is expected to get, has received, and gets
    from questions (docs/how-it-works.md). For ablations, and for standing questions of your own.

    Attributes:
        use_fit: count expected attention.
        use_received: count received attention, that of the text's own queries.
        decay: factor on received attention, for every 128 tokens.
        received_weight: factor on received attention.
        question_weight: factor on the attention of the question.
        question_foreseen: in foreseen attention the question counts as so many times the standing questions.
        standing_weight: factor on foreseen attention, that of the standing questions; 0: they are not read.
        retrieval_share: share of the KV heads whose attention is foreseen: the retrieval heads, whose first keys are
            expected to get the most attention.
        least_retrieval_heads: how many these are at least, where a model has so many.
        other_heads: factor on foreseen attention for the keys of all other heads.
        value_power: power of the norm of a key's value that its attention is multiplied by; 0: the norm does not count.
            The norm is relative to the geometric mean over the head's first values.
        received_value_power: the same for received attention.
        stride: the queries of one token in so many give received attention.
        spread_back: so many keys before a key get its attention of a question, too.
        spread_forward: so many keys after a key get its attention of standing questions, too.
        question_forward: the same for the question.
        standing_questions: questions that might be asked of any text, each up to where its answer would begin, of at
            most 128 tokens.
    """

    use_fit: bool = _BEST.use_fit
    use_received: bool = _BEST.use_received
    decay: float = _BEST.decay
    received_weight: float = _BEST.received_weight
    question_weight: float = _BEST.question_weight
    question_foreseen: float = _BEST.question_foreseen
    standing_weight: float = _BEST.standing_weight
    retrieval_share: float = _BEST.retrieval_share
    least_retrieval_heads: int = _BEST.least_retrieval_heads
    other_heads: float = _BEST.other_heads
    value_power: float = _BEST.value_power
    received_value_power: float = _BEST.received_value_power
    stride: int = _BEST.stride
    spread_back: int = _BEST.spread_back
    spread_forward: int = _BEST.spread_forward
    question_forward: int = _BEST.question_forward
    standing_questions: tuple[str, ...] = tuple(_BEST.standing_questions)

    def to_native(self) -> core.KeyScoreOptions:
        """Return the same settings as the C++ engine takes them.

        Raises:
            BudgetError: a value makes no sense.
        """
        return core.KeyScoreOptions(**asdict(self))


@dataclass(frozen=True)
class EvictionSettings:
    """What is evicted from a cache, and when; the names are those of `Llama`.

    Attributes:
        budget: keys kept per layer and KV head.
        mode: how keys are chosen; see `Llama`.
        interval: tokens between evictions.
        window: the newest keys, never evicted; None: `default_window`.
        n_sink: the first keys, never evicted.
        seed: the seed of mode ``random``.
        scale_budget_by_attention: raise the budget where few layers have full attention.
        chooser: the function that mode ``custom`` asks; see `Llama`.
        key_score: the parts of the score of mode ``fitted``; None: the defaults.
        reread: whether tokens are read once more before an eviction; see `Llama`.

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
    key_score: KeyScoreOptions | None = None
    reread: bool = False
    _names_window: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take whole numbers of any kind, numpy's too."""
        object.__setattr__(self, "_names_window", self.window is not None)
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
        if self._leaves_little_to_choose(n_protected):
            warnings.warn(
                f"the protected prompt of {n_protected} tokens and the window of {self.window} leave little of the "
                f"budget of {self.budget} to choose: of later text only the newest keys are kept; raise the budget, or "
                "use protect_prompt=False",
                BudgetWarning,
                stacklevel=4,
            )

    def scarcity(self) -> str | None:
        """Say what leaves hardly a key to choose, and the remedy; None: sinks and window leave enough of the budget."""
        if not self._leaves_little_to_choose(0):
            return None
        return (
            f"n_sink ({self.n_sink}) and window ({self.window}) leave little of the budget of {self.budget:,} to "
            "choose: of later text only the newest keys are kept; raise the budget or lower window"
        )

    def _leaves_little_to_choose(self, n_protected: int) -> bool:
        return core.leaves_little_to_choose(self.mode, self.budget, self.window, self.n_sink, n_protected)

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

    def with_mode(self, mode: str) -> EvictionSettings:
        """Return the same settings with another mode, and with its default window if none was named."""
        return replace(self, mode=mode, window=self.window if self._names_window else default_window(mode, self.budget))

    @property
    def needs_fit(self) -> bool:
        """Whether keys are scored by expected attention, for which the statistics have to have fitted weights."""
        return self.mode == DEFAULT_MODE and (self.key_score or KeyScoreOptions()).use_fit

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
            key_score=(self.key_score or KeyScoreOptions()).to_native(),
        )

    def describe_state(self) -> dict[str, Any]:
        """Return the settings that must be the same when a saved state is loaded, as JSON values."""
        # the budget is what came of scaling; the chooser is code, whose choices are in the state
        left_out = ("scale_budget_by_attention", "chooser", "key_score", "_names_window")
        return {of.name: getattr(self, of.name) for of in fields(self) if of.name not in left_out}
