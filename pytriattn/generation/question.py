"""Which tokens of a prompt are its question: they choose what is kept of the rest."""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.session.session import Session

__all__ = ["AUTO", "Question", "find_question"]

AUTO = "auto"
N_AUTO = 64
"""Tokens at the end of a prompt, or of a long message, that are taken for its question where nobody says what the
question is. More of them dilute it: with 128, an eighth of the keys loses 0.06 of R (docs/quality.md).
"""
MAX_TOKENS = 128


class Question(NamedTuple):
    """Tokens ``begin`` to ``end`` (exclusive) of a prompt."""

    begin: int
    end: int


def find_question(
    llm: Session, tokens: npt.NDArray[np.int32], question: int | str | None, *, is_text: bool = False
) -> Question | None:
    """Return which tokens of a prompt are its question; None: it has none.

    Args:
        llm: the model.
        tokens: ids of the prompt, int32 [n_tokens]; negative numbers stand for images.
        question: ``auto``: the last tokens; a number of last tokens; a text that stands in the prompt (its last
            occurrence counts); None or 0: none.
        is_text: `question` is a message, even if it reads ``auto``: of a long one its last tokens count, and where it
            cannot be found those of the prompt.

    Raises:
        ValueError: the number is negative or too large, or the text is not in the prompt.
        BudgetError: what was named is longer than the budget.
    """
    if question is None or len(tokens) == 0:
        return None
    longest = MAX_TOKENS if llm.budget is None else min(MAX_TOKENS, llm.budget)
    n_before = int(np.flatnonzero(tokens < 0)[-1]) + 1 if (tokens < 0).any() else 0
    if n_before:  # a question is a text, and stands behind the last image
        found = find_question(llm, tokens[n_before:], question, is_text=is_text)
        return None if found is None else Question(found.begin + n_before, found.end + n_before)
    if question == AUTO and not is_text:
        return Question(max(0, len(tokens) - min(N_AUTO, longest)), len(tokens))
    if isinstance(question, str):
        found = _occurrence(llm, tokens, question)
        if found is not None and is_text:
            n = found.end - found.begin
            return found if n <= longest else Question(found.end - min(N_AUTO, longest), found.end)
        if found is not None:
            return _checked(llm, Question(max(found.begin, found.end - MAX_TOKENS), found.end))
        if is_text:
            return find_question(llm, tokens, AUTO)
        shown = question if len(question) < 60 else question[:57] + "..."
        raise ValueError(f"the question {shown!r} is not in the prompt; give a text that stands there word for word")
    n = operator.index(question)
    if not 0 <= n <= MAX_TOKENS:
        raise ValueError(f"question is {n} tokens, it must be from 0 to {MAX_TOKENS}")
    return _checked(llm, Question(max(0, len(tokens) - n), len(tokens))) if n else None


def _checked(llm: Session, question: Question) -> Question:
    """Return a question that somebody named, if the budget could hold it."""
    if llm.budget is not None and llm.takes_questions:
        core.check_question_length(question.end - question.begin, llm.budget)
    return question


def _occurrence(llm: Session, tokens: npt.NDArray[np.int32], text: str) -> Question | None:
    """Return the tokens of the last occurrence of a text."""
    wanted = text.strip().encode("utf-8")
    pieces = [llm.token_bytes(int(token), special=True) for token in tokens]
    at = b"".join(pieces).rfind(wanted) if wanted else -1
    if at < 0:
        return None
    ends = np.cumsum([len(piece) for piece in pieces])
    begin = int(np.searchsorted(ends, at, side="right"))
    end = int(np.searchsorted(ends, at + len(wanted), side="left")) + 1
    return Question(begin, end)
