"""Facts that a text states, how they are asked for, and the same facts with other values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from pytriattn.lab.documents import Question, Tokens
from pytriattn.lab.writing.words import COLOURS, PEOPLE, PLACES, THINGS, WORDS
from pytriattn.lab.writing.writer import Insert, Writer, as_tokens

__all__ = ["Fact", "draw_facts", "questions_about", "spread_ages"]


@dataclass(frozen=True)
class _Kind:
    """How facts of a kind are stated and asked for; ``{0}`` is the subject, ``{}`` the value after the stem."""

    subjects: tuple[str, ...]
    stem: str
    question: str
    values: tuple[str, ...]


_NUMBERS = tuple(str(n) for n in range(1013, 9999, 7))
# Values are hard to guess: a rule that has lost a fact must not score by knowing what such facts are like.
_KINDS = (
    _Kind(
        tuple(f"{colour} {thing}" for colour, thing in product(COLOURS, THINGS)),
        "The code of the {0} is",
        "What is the code of the {0}?",
        _NUMBERS,
    ),
    _Kind(PEOPLE, "The password of {0} is", "What is the password of {0}?", WORDS),
    _Kind(PLACES, "The number of houses in {0} is", "How many houses are there in {0}?", _NUMBERS),
    _Kind(
        tuple(f"ship from {place}" for place in PLACES),
        "The name of the {0} is",
        "What is the name of the {0}?",
        tuple(word.capitalize() for word in WORDS),
    ),
)


@dataclass(frozen=True, eq=False)
class Fact:
    """A fact.

    Attributes:
        insert: the sentence, and the same sentence with another value, as tokens.
        prompt: a question for the fact, up to where the value follows, as tokens.
        answer: the value as tokens.
        value: the value as text.
        statement: the sentence as text.
        false_statement: the sentence with the other value, as text.
        question: the question as text, without the beginning of the answer.
        stem: the beginning of the answer.
    """

    insert: Insert
    prompt: Tokens
    answer: Tokens
    value: str
    statement: str
    false_statement: str
    question: str
    stem: str


def draw_facts(writer: Writer, n: int) -> list[Fact]:
    """Return `n` facts with different subjects, of all kinds in turn."""
    rng = writer.rng
    subjects = [list(rng.permutation(np.array(kind.subjects, dtype=object))) for kind in _KINDS]
    found = []
    for i in range(n):
        number = i % len(_KINDS)
        if not subjects[number]:
            number = 0
        found.append(_fact(writer, _KINDS[number], str(subjects[number].pop())))
    return found


def _fact(writer: Writer, kind: _Kind, subject: str) -> Fact:
    stem = kind.stem.format(subject)
    values = [
        str(v)
        for v in writer.rng.choice(np.array(kind.values, dtype=object), 12 if len(kind.values) > 12 else 8, False)
    ]
    true, false = writer.alike(f" {stem} {{}}.", values)[:2]
    question = kind.question.format(subject)
    return Fact(
        writer.pair(f" {stem} {{}}.", true, false),
        as_tokens(writer.tokenize(f"\nQuestion: {question}\nAnswer: {stem}")),
        as_tokens(writer.tokenize(f" {true}")),
        true,
        f"{stem} {true}.",
        f"{stem} {false}.",
        question,
        stem,
    )


def spread_ages(n: int, n_tokens: int, least: int = 24, room: int = 96) -> list[int]:
    """Return `n` ages in tokens, descending, from `least` to `n_tokens` - `room`, closer together where they are
    small.
    """
    return [round(age) for age in np.geomspace(n_tokens - room, least, n)]


def questions_about(
    facts: list[Fact], ends: list[int], task: str, at: int, groups: list[str] | None = None
) -> list[Question]:
    """Return a question for each fact that ended at a place of the text, asked when `at` tokens have been read."""
    return [
        Question(task, at, fact.prompt, fact.answer, "" if groups is None else groups[i], at - ends[i])
        for i, fact in enumerate(facts)
    ]
