"""What a quality run measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytriattn.lab.documents import Document
from pytriattn.lab.errors import LabError
from pytriattn.lab.rules import DEFAULT_RULES, QUICK_RULES, find_rules
from pytriattn.lab.rules.base import Rule
from pytriattn.lab.tasks import TASKS, families_of
from pytriattn.options.eviction import USUAL_WINDOW, EvictionSettings

__all__ = ["QUICK", "EvalSettings"]

HALVES = ("choose", "report")
LEAST_TOKENS = 512
QUICK_TASKS = ("facts", "copy")


@dataclass(frozen=True)
class EvalSettings:
    """What a quality run measures.

    Attributes:
        rules: names of rules; ``+pinned`` behind a name protects the prompt; ``all`` stands for all rules.
        tasks: names of tasks.
        ratios: length of a document divided by the budget; not used if `budgets` are given.
        budgets: keys kept per layer and KV head.
        documents: how many documents of each kind.
        tokens: length of a document in tokens; ``perplexity`` reads twice as many.
        half: ``choose``: documents to choose a rule with; ``report``: other documents to report on.
        seed: the seed of documents and of rules that draw by chance.
        window: the newest keys, never evicted; None: the default of each mode.
        n_sink: the first keys, never evicted.

    Raises:
        LabError: a value makes no sense; the message names it.
    """

    rules: Sequence[str] = DEFAULT_RULES
    tasks: Sequence[str] = TASKS
    ratios: Sequence[int] = (4,)
    budgets: Sequence[int] = ()
    documents: int = 2
    tokens: int = 2048
    half: str = "report"
    seed: int = 0
    window: int | None = None
    n_sink: int = 4

    def __post_init__(self) -> None:
        """Check all values."""
        families_of(self.tasks)
        find_rules(self.rules)
        if self.half not in HALVES:
            raise LabError(f"the half is {self.half!r}, it must be 'choose' or 'report'")
        if self.tokens < LEAST_TOKENS:
            raise LabError(f"documents of {self.tokens} tokens are too short; use at least {LEAST_TOKENS}")
        for name, values in (("ratio", self.ratios), ("budget", self.budgets)):
            for value in values:
                if value < 1:
                    raise LabError(f"a {name} is {value}, it must be at least 1")
        if self.documents < 1:
            raise LabError(f"documents is {self.documents}, it must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise LabError(f"the seed is {self.seed}, it must be from 0 to {2**32 - 1}")
        if not self.budgets and not self.ratios:
            raise LabError("there are no budgets and no ratios; give one of them")

    @property
    def least_window(self) -> int:
        """The window that every budget must have room for, since rules other than ``fitted`` have it."""
        return USUAL_WINDOW if self.window is None else self.window

    def budgets_for(self, document: Document, tasks: Sequence[str]) -> list[int]:
        """Return the budgets that a document is read under.

        Raises:
            LabError: one is below what sinks and window need.
        """
        least = EvictionSettings(1, window=self.least_window, n_sink=self.n_sink).least_budget
        found = []
        for value in self.budgets or self.ratios:
            budget = value if self.budgets else document.length // value
            if budget < least:
                what = "" if self.budgets else f"; that is ratio {value} of a document of {document.length} tokens"
                remedy = "raise --budgets" if self.budgets else "raise --tokens, or leave that ratio out"
                raise LabError(
                    f"the budget {budget} of the task {tasks[0]!r} is below the least one of {least} ({self.n_sink} "
                    f"sinks, a window of {self.least_window}, one key to choose){what}; {remedy}"
                )
            found.append(budget)
        return found

    def all_rules(self) -> list[Rule]:
        """Return the rules, with ``full`` first, and ``recent`` where a task has no other floor."""
        names = ["full", *self.rules]
        if {"perplexity", "replay"} & set(self.tasks):
            names.append("recent")
        return find_rules(names)

    def quick(self) -> EvalSettings:
        """Return the same with few short documents and rules: enough to see the order of the rules."""
        return replace(self, rules=QUICK_RULES, tasks=QUICK_TASKS, ratios=(4,), budgets=(), documents=1, tokens=1024)


QUICK = EvalSettings().quick()
