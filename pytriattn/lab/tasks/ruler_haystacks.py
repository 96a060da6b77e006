"""Three tasks after RULER (arXiv 2404.06654): a needle in noise, and one among needles, of words and of random
codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.words import COLOURS, NOISE, WORDS
from pytriattn.lab.writing.writer import Insert, Writer, as_tokens

__all__ = ["niah_multikey_2", "niah_multikey_3", "niah_single_1", "noise_sentences"]

_HEAD = "Some special magic values are hidden in the following text. Memorize them.\n"
_TEXT = " One of the special magic values for {0} is: {{}}."
_QUESTION = "\nWhat is the special magic value for {0}? The special magic value for {0} mentioned in the text is"
_N_ASKED = 8


def noise_sentences(writer: Writer) -> Iterator[list[int]]:
    """Yield the tokens of sentences that mean nothing, again and again."""
    sentences = [writer.tokenize(" " + sentence) for sentence in NOISE]
    while True:
        yield from sentences


def _keys(rng: np.random.Generator, n: int) -> list[str]:
    pairs = [f"{colour}-{word}" for word in dict.fromkeys(WORDS) for colour in COLOURS]
    return [str(pair) for pair in rng.choice(np.array(pairs, dtype=object), n, False)]


def _code(rng: np.random.Generator) -> str:
    """Return a code like the first parts of a UUID."""
    return "-".join("".join(rng.choice(list("0123456789abcdef"), size)) for size in (8, 4))


def _pair(writer: Writer, key: str, values: list[str]) -> tuple[Insert, str]:
    """Return a needle for a key whose two values have the same number of tokens, and the true value."""
    text = _TEXT.format(key)
    true, false = writer.alike(text, values)[:2]
    return writer.pair(text, true, false), true


def _document(given: TaskInput, task: str, needles: list[tuple[str, Insert, str]], asked: list[int]) -> Document:
    writer, n = given.writer, given.n_tokens
    head = writer.bos + writer.tokenize(_HEAD)
    inserts = [insert for _, insert, _ in needles]
    room = n - len(head) - 64
    ages = [round(age) for age in np.linspace(room - len(inserts[0].true), 4, len(needles))]
    written = writer.weave(inserts, ages, n, head, noise_sentences(writer))
    questions = []
    for i in asked:
        key, _, value = needles[i]
        prompt = as_tokens(writer.tokenize(_QUESTION.format(key)))
        answer = as_tokens(writer.tokenize(f" {value}"))
        questions.append(Question(task, n, prompt, answer, "", n - written.ends[i]))
    return Document(written.true, tuple(questions), written.false, len(head), n, written.nothing)


def niah_single_1(given: TaskInput) -> Document:
    """Return repeated noise with a number for each of a few words; each is asked for."""
    needles = []
    for key in _keys(given.rng, _N_ASKED):
        numbers = [str(number) for number in given.rng.integers(1_000_000, 10_000_000, 12)]
        needles.append((key, *_pair(given.writer, key, numbers)))
    return _document(given, "ruler-niah-single-1", needles, list(range(_N_ASKED)))


def _haystack_of_needles(given: TaskInput, task: str, keys: list[str], make_value: Callable[[], str]) -> Document:
    """Return needles and nothing else, some of which are asked for."""
    needles: list[tuple[str, Insert, str]] = []
    size = 0
    for key in keys:
        insert, value = _pair(given.writer, key, [make_value() for _ in range(12)])
        size += len(insert.true)
        if size > given.n_tokens - 160:
            break
        needles.append((key, insert, value))
    asked = sorted(int(i) for i in given.rng.choice(len(needles), min(_N_ASKED, len(needles)), False))
    return _document(given, task, needles, asked)


def niah_multikey_2(given: TaskInput) -> Document:
    """Return a haystack of needles with words as keys and numbers as values."""
    keys = _keys(given.rng, 200)
    return _haystack_of_needles(
        given, "ruler-niah-multikey-2", keys, lambda: str(given.rng.integers(1_000_000, 10_000_000))
    )


def niah_multikey_3(given: TaskInput) -> Document:
    """Return a haystack of needles with random codes as keys and values."""
    keys = [_code(given.rng) for _ in range(200)]
    return _haystack_of_needles(given, "ruler-niah-multikey-3", keys, lambda: _code(given.rng))
