"""What a task gets to write a document with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytriattn.lab.documents import Tokens
from pytriattn.lab.writing.writer import Writer

__all__ = ["ChatPieces", "TaskInput"]


@dataclass(frozen=True)
class ChatPieces:
    """How a model's chat template surrounds messages, as token ids.

    Attributes:
        before_system: the tokens that the chat begins with.
        before_first_user: the tokens between the system message and the first message of the user.
        before_answer: the tokens between a message of the user and the answer.
        before_user: the tokens between an answer and the next message of the user.
    """

    before_system: list[int]
    before_first_user: list[int]
    before_answer: list[int]
    before_user: list[int]


@dataclass(frozen=True)
class TaskInput:
    """What a document is written with.

    Attributes:
        writer: tokenizer, ordinary text, and what is drawn by chance.
        n_tokens: the length of the document in tokens.
        index: the number of the document among those of its kind.
        chat: the model's chat template.
        generate: returns as many tokens as asked for that the full cache generates after a text; the last argument:
            greedy.
    """

    writer: Writer
    n_tokens: int
    index: int
    chat: ChatPieces
    generate: Callable[[Tokens, int, bool], Tokens]

    @property
    def rng(self) -> np.random.Generator:
        """What is drawn by chance."""
        return self.writer.rng
