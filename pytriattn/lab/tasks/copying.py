"""``copy``: a text read twice; how well the second reading is predicted."""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["copying"]


def copying(given: TaskInput) -> Document:
    """Return a text of half the tokens, and itself as the answer. The floor has read another text of the same
    length.
    """
    writer = given.writer
    n = given.n_tokens // 2
    text = writer.source.passage(writer.tokenize, given.rng, n - len(writer.bos))
    other = writer.source.passage(writer.tokenize, given.rng, n - len(writer.bos))
    again = as_tokens(writer.tokenize("\n\n"))
    question = Question("copy", n, again, text[: given.n_tokens - n - len(again)])
    floor = np.concatenate([as_tokens(writer.bos), other])
    return Document(np.concatenate([as_tokens(writer.bos), text]), (question,), floor, 0, given.n_tokens)
