"""``replay``: what the full cache generates is read under a budget: does the model go on saying the same?"""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["replay"]

_PROMPT = "Continue the following text, in the same style.\n"


def replay(given: TaskInput) -> Document:
    """Return half a text, and what the full cache generates after it as the answer: greedy and sampled in turn."""
    writer, n = given.writer, given.n_tokens
    head = as_tokens(writer.bos + writer.tokenize(_PROMPT))
    begin = np.concatenate([head, writer.source.passage(writer.tokenize, given.rng, n // 2 - len(head))])
    is_greedy = given.index % 2 == 0
    answer = given.generate(begin, n - len(begin), is_greedy)
    question = Question("replay", len(begin) - 1, begin[-1:], answer, "greedy" if is_greedy else "sampled")
    return Document(begin[:-1], (question,), None, len(head), n, keeps_distributions=True)
