"""``state-updates``: values that are set again and again; the questions ask for the last ones."""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.facts import spread_ages
from pytriattn.lab.writing.words import PLACES
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["updates"]

_N_NAMES = 10


def updates(given: TaskInput) -> Document:
    """Return a list of updates of ten numbers, the last one of each at another age, and a question for each."""
    writer, n, rng = given.writer, given.n_tokens, given.rng
    names = [str(name) for name in rng.permutation(np.array(PLACES, dtype=object))[:_N_NAMES]]
    head = writer.bos + writer.tokenize("The list gives the water level of each town, measured again and again.\n")
    true, false = list(head), list(head)
    ages = spread_ages(_N_NAMES, n, room=len(head) + 160)
    waiting = list(zip(names, ages, strict=True))  # for their last update, the oldest first
    last: list[tuple[str, str, int]] = []
    while waiting:
        is_last = n - len(true) <= waiting[0][1] + 16
        name = waiting[0][0] if is_last else waiting[int(rng.integers(len(waiting)))][0]
        levels = [str(level) for level in rng.integers(100, 1000, 12)]
        text = f" {name} is at {{}}."
        level, other = writer.alike(text, list(dict.fromkeys(levels)))[:2]
        insert = writer.pair(text, level, other)
        true += insert.true
        false += insert.false
        if is_last:
            waiting.pop(0)
            last.append((name, level, len(true)))
    rest = writer.prose(max(1, n - len(true)))
    questions = []
    for name, level, end in last:
        prompt = as_tokens(writer.tokenize(f"\nQuestion: What is the latest level of {name}?\nAnswer: {name} is at"))
        if end <= n:
            answer = as_tokens(writer.tokenize(f" {level}"))
            questions.append(Question("state-updates", n, prompt, answer, "", n - end))
    tokens, floor = as_tokens([*true, *rest][:n]), as_tokens([*false, *rest][:n])
    return Document(tokens, tuple(questions), floor, len(head), n)
