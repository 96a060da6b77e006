"""The results of checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pytriattn.errors import TriAttnError

__all__ = ["Finding", "Status", "failure", "ok", "raise_failures", "warning"]


class Status(str, Enum):
    """The result of a check, in one word."""

    OK = "ok"
    WARN = "warn"
    """It will run, but perhaps not as the user means it."""
    FAIL = "fail"
    """It cannot run."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check: ``statistics``, ``architecture``, ``layers``, ``flash attention``, ``backends``,
            ``build``, ``context``, ``budget``, ``scaling``, ``draft model``, ``memory`` or ``advice``.
        status: the result in one word.
        message: one or two sentences about what was found.
        error: the error that `raise_failures` raises for it; None unless the check failed.
    """

    name: str
    status: Status
    message: str
    error: type[TriAttnError] | None = None


def raise_failures(findings: Sequence[Finding]) -> None:
    """Raise the error of the first failure, with the messages of all of them.

    Raises:
        StatsError, UnsupportedModelError, BudgetError, ContextError: as `Llama` at load.
    """
    failures = [finding for finding in findings if finding.status is Status.FAIL]
    if failures:
        raise (failures[0].error or TriAttnError)("; ".join(finding.message for finding in failures))


def ok(name: str, message: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(name, Status.OK, message)


def warning(name: str, message: str) -> Finding:
    """Return the finding of a check that passed, but perhaps not as the user means it."""
    return Finding(name, Status.WARN, message)


def failure(name: str, message: str, error: type[TriAttnError]) -> Finding:
    """Return the finding of a check that failed."""
    return Finding(name, Status.FAIL, message, error)
