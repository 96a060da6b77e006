"""``needle``: one needle at each depth of a text, every other one being a distractor of the same form."""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.words import PLACES
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["needle"]

_DEPTHS = (0, 10, 25, 40, 50, 60, 75, 90, 95, 100)  # per cent


def needle(given: TaskInput) -> Document:
    """Return a text with a magic number for a different town at each depth, and a question for each."""
    writer, n = given.writer, given.n_tokens
    towns = [str(town) for town in given.rng.permutation(np.array(PLACES, dtype=object))[: len(_DEPTHS)]]
    numbers = [str(number) for number in given.rng.choice(9000, 2 * len(_DEPTHS), False) + 1000]
    text = " One of the magic numbers is the one of {0}: it is {{}}."
    inserts = [writer.pair(text.format(town), numbers[2 * i], numbers[2 * i + 1]) for i, town in enumerate(towns)]
    room = n - max(len(insert.true) for insert in inserts) - len(writer.bos)
    written = writer.weave(inserts, [round(room * (100 - depth) / 100) for depth in _DEPTHS], n, writer.bos)
    questions = []
    for i, town in enumerate(towns):
        prompt = f"\nQuestion: What is the magic number of {town}?\nAnswer: The magic number of {town} is"
        answer = as_tokens(writer.tokenize(f" {numbers[2 * i]}"))
        age = n - written.ends[i]
        questions.append(
            Question("needle", n, as_tokens(writer.tokenize(prompt)), answer, f"depth {_DEPTHS[i]} %", age)
        )
    return Document(written.true, tuple(questions), written.false, 0, n, written.nothing)
