"""What the lab raises."""

from __future__ import annotations

from pytriattn.errors import TriAttnError

__all__ = ["LabError"]


class LabError(TriAttnError, ValueError):
    """A quality run cannot be made as asked: a task, a rule, a budget or a results file does not fit; the message says
    what does.
    """
