"""What a task consists of: texts as tokens, and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Document", "Question", "Tokens"]

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Question:
    """Something asked about a text, and what the answer should be.

    Attributes:
        task: the task that the question counts for.
        at: how many tokens of the document have been read when it is asked.
        prompt: the question, int32 [n]; it ends where the answer begins. At least one token.
        answer: the answer, int32 [n].
        group: the group that it is reported in, such as a depth or a place in a chat.
        age: tokens between the place that it asks for and `at`; None: it asks for no single place.
        scored: which tokens of the answer count, bool [n]; None: all.
        references: texts to look for in a generated answer; empty: nothing is generated.
    """

    task: str
    at: int
    prompt: Tokens
    answer: Tokens
    group: str = ""
    age: int | None = None
    scored: npt.NDArray[np.bool_] | None = None
    references: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Document:
    """A text with questions.

    Attributes:
        tokens: the text, int32 [n].
        questions: the questions, ascending by `at`.
        floor: the same text with other information than what is asked for, int32 [n]; None: the rule ``recent`` is the
            floor.
        nothing: the same text with ordinary text in place of the information, int32 [n]; None: not measured.
        n_prompt: how many tokens, from the start, a user would call the prompt; they can be protected.
        length: tokens that a ratio divides to get the budget.
        keeps_distributions: whether predictions are compared with the full cache's, token by token.
    """

    tokens: Tokens
    questions: tuple[Question, ...]
    floor: Tokens | None
    n_prompt: int
    length: int
    nothing: Tokens | None = None
    keeps_distributions: bool = False

    @property
    def n_read(self) -> int:
        """The most tokens that a run reads at once: the text, and the longest question with its answer."""
        return max(question.at + len(question.prompt) + len(question.answer) for question in self.questions)

    @property
    def cost(self) -> int:
        """Tokens that one rule reads of it, questions and answers included."""
        questions = sum(len(question.prompt) + len(question.answer) for question in self.questions)
        return max(question.at for question in self.questions) + questions

    def only(self, tasks: Sequence[str]) -> Document:
        """Return the document with the questions of these tasks alone."""
        questions = tuple(question for question in self.questions if question.task in tasks)
        return replace(self, questions=questions)
