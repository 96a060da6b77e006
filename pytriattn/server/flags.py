"""The flags that ``pytriattn-server`` has beside llama-server's own."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytriattn._native import core
from pytriattn.errors import BudgetError
from pytriattn.options.eviction import DEFAULT_MODE, EvictionSettings

__all__ = ["FLAGS", "BudgetFlags", "Flag", "budget_flags", "split_flags", "take_flags", "usage"]

PREFIX = "--triattention-"


class Flag(NamedTuple):
    """A flag.

    Attributes:
        name: without ``--triattention-``; the environment variable is ``LLAMA_ARG_TRIATTENTION_`` and this.
        value: what stands for its value in the usage; an empty string if it has none.
        text: what it does.
    """

    name: str
    value: str
    text: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "LLAMA_ARG_TRIATTENTION_" + self.name.upper().replace("-", "_")


FLAGS = (
    Flag("budget", "N", "keys kept per layer and KV head, of each slot; -c is then what each slot may read"),
    Flag("stats", "FILE", "a .triattention file (default: calibrate at the first start, and keep the result)"),
    Flag("window", "N", "the newest keys, never evicted (default: as of Llama)"),
    Flag("interval", "N", "tokens between evictions (default: 128)"),
    Flag("mode", "NAME", f"how keys are chosen: {', '.join(core.MODES)} (default: {DEFAULT_MODE})"),
    Flag("sinks", "N", "the first keys, never evicted (default: 4)"),
    Flag("reread", "", "read the tokens of each interval once more before an eviction"),
    Flag("protect-prompt", "", "never evict the prompt; each request reads its prompt from the start"),
    Flag("scale-budget", "", "raise the budget where few layers have full attention"),
    Flag("allow-untested", "", "take an architecture that has not passed the tests of eviction"),
)


@dataclass(frozen=True)
class BudgetFlags:
    """What the flags say.

    Attributes:
        eviction: the settings; None without a budget.
        stats: a path; None: none given.
        allow_untested: see `Llama`.
        protect_prompt: see `Llama`.
        may_fall_back: no mode was named, so that another may be taken for statistics that have no fit.
    """

    eviction: EvictionSettings | None = None
    stats: str | None = None
    allow_untested: bool = False
    may_fall_back: bool = True
    protect_prompt: bool = False


def usage() -> str:
    """Return the flags as lines of text."""
    lines = ["----- budget -----", ""]
    for flag in FLAGS:
        lines.append(f"{PREFIX}{flag.name} {flag.value}".ljust(40) + flag.text)
        lines.append(" " * 40 + f"(env: {flag.variable})")
    return "\n".join(lines)


def take_flags(arguments: Sequence[str], names: Container[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the flags of these names with their values (``--flag value`` or ``--flag=value``; empty where none
    follows), and all other arguments in order.
    """
    found: list[tuple[str, str]] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        flag, equals, value = argument.partition("=")
        if flag in names:
            found.append((flag, value if equals else next(waiting, "")))
        else:
            rest.append(argument)
    return found, rest


def split_flags(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> tuple[dict[str, str], list[str]]:
    """Return the values of our flags by name, and all other arguments in order.

    A flag is worth more than its environment variable. A flag without a value is worth ``1``.

    Raises:
        BudgetError: a flag starts with ``--triattention-`` and is none of ours, or its value is missing.
    """
    known = {PREFIX + flag.name: flag for flag in FLAGS}
    found = {flag.name: environment[flag.variable] for flag in FLAGS if environment.get(flag.variable)}
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if not name.startswith(PREFIX):
            rest.append(argument)
            continue
        flag = known.get(name)
        if flag is None:
            raise BudgetError(f"there is no flag {name}; there are {', '.join(known)}")
        if not flag.value:
            value = "1"
        elif not equals:
            value = next(waiting, "")
            if not value:
                raise BudgetError(f"{name} needs a value: {name} {flag.value}")
        found[flag.name] = value
    return found, rest


def _whole(found: Mapping[str, str], name: str, default: int | None) -> int | None:
    if name not in found:
        return default
    try:
        return int(found[name])
    except ValueError:
        raise BudgetError(f"{PREFIX}{name} is '{found[name]}', it must be a whole number") from None


def budget_flags(found: Mapping[str, str]) -> BudgetFlags:
    """Return the settings that these values of flags make.

    Raises:
        BudgetError: they do not fit together.
    """
    budget = _whole(found, "budget", None)
    if budget is None:
        if found:
            raise BudgetError(f"{PREFIX}{next(iter(found))} changes nothing without {PREFIX}budget")
        return BudgetFlags()
    mode = found.get("mode", DEFAULT_MODE)
    if mode not in core.MODES:
        raise BudgetError(f"{PREFIX}mode is '{mode}', it must be one of {', '.join(core.MODES)}")
    eviction = EvictionSettings(
        budget,
        mode,
        _whole(found, "interval", 128) or 0,
        _whole(found, "window", None),  # type: ignore[arg-type]  # None is for the settings to replace
        _whole(found, "sinks", 4) or 0,
        scale_budget_by_attention="scale-budget" in found,
        reread="reread" in found,
    )
    return BudgetFlags(
        eviction,
        found.get("stats"),
        allow_untested="allow-untested" in found,
        may_fall_back="mode" not in found,
        protect_prompt="protect-prompt" in found,
    )
