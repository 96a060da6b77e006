"""``perplexity``: how well running text is predicted; twice as many tokens as the other tasks have."""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["perplexity"]

_BEGIN = 256  # tokens that are read and not scored


def perplexity(given: TaskInput) -> Document:
    """Return the beginning of a passage, and its rest as the answer. The floor is what the newest keys alone can do."""
    writer, n = given.writer, 2 * given.n_tokens
    text = np.concatenate(
        [as_tokens(writer.bos), writer.source.passage(writer.tokenize, given.rng, n - len(writer.bos))]
    )
    question = Question("perplexity", _BEGIN, text[_BEGIN : _BEGIN + 1], text[_BEGIN + 1 :])
    return Document(text[:_BEGIN], (question,), None, 0, n)
