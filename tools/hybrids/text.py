"""The text that the small models are trained on and asked about: facts stated once and asked late, copying, filler.

A token is a byte. A fact is ``Kq=37;``: an upper-case and a lower-case letter, then two digits. Its question is
``?Kq=``, its answer the two digits. Strings in brackets come twice. Between them stand sentences of a small grammar,
now and then with a number or with the letters of a key, which look like a fact and are none.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["N_VOCAB", "Fact", "Mix", "draw_facts", "filler", "join", "training_text"]

N_VOCAB = 256
ANSWER_BYTES = 2

_NOUNS = (
    b"cat dog tree house river stone bird field boat child road lamp hill bread coat glass horse king ring song".split()
)
_VERBS = b"sees finds keeps takes holds likes hides moves wants calls".split()
_PLACES = b"near under over behind beside".split()
_ARTICLES = b"the a this that one".split()

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes:
        key: two letters.
        value: two digits.
    """

    key: bytes
    value: bytes

    @property
    def statement(self) -> bytes:
        """The fact as a text states it."""
        return self.key + b"=" + self.value + b"; "

    @property
    def question(self) -> bytes:
        """The question that ends where the answer begins."""
        return b"?" + self.key + b"="


@dataclass(frozen=True)
class Mix:
    """What a training text consists of.

    Attributes:
        n_tokens: its length.
        n_facts: facts, each of them stated once and asked once.
        n_copies: strings that come twice.
        near: share of facts whose key has the first letter of another one's.
    """

    n_tokens: int
    n_facts: int
    n_copies: int
    near: float = 0.5


def draw_facts(rng: np.random.Generator, n: int, near: float = 0.0) -> list[Fact]:
    """Return facts with keys that differ, this share of them (on average) with the first letter of another key."""
    keys: dict[bytes, None] = {}
    while len(keys) < n:
        first = string.ascii_uppercase[rng.integers(26)].encode()
        if keys and rng.random() < near:
            first = list(keys)[rng.integers(len(keys))][:1]
        keys[first + string.ascii_lowercase[rng.integers(26)].encode()] = None
    return [Fact(key, b"%02d" % rng.integers(100)) for key in keys]


def filler(rng: np.random.Generator, n_bytes: int) -> bytes:
    """Return sentences of at least this many bytes, a twentieth of them with a number, another with a key alone."""
    sentences: list[bytes] = []
    length = 0
    while length < n_bytes:
        subject, thing, place = (_NOUNS[i] for i in rng.integers(len(_NOUNS), size=3))
        words = [_one_of(rng, _ARTICLES), subject, _one_of(rng, _VERBS), _one_of(rng, _ARTICLES), thing]
        if rng.random() < 0.5:
            words += [_one_of(rng, _PLACES), _one_of(rng, _ARTICLES), place]
        decoy = rng.random()
        if decoy < 0.05:
            words.append(b"%02d" % rng.integers(100))
        elif decoy < 0.1:
            words.append(draw_facts(rng, 1)[0].key)
        sentences.append(b" ".join(words) + b". ")
        length += len(sentences[-1])
    return b"".join(sentences)


def join(rng: np.random.Generator, pieces: Sequence[tuple[float, bytes]], n_tokens: int) -> tuple[bytes, list[int]]:
    """Put pieces into filler.

    Args:
        rng: draws the filler.
        pieces: (place, text), place from 0 (the beginning) to 1 (the end), ascending.
        n_tokens: length of the result in bytes.

    Returns:
        The text, and where each piece begins in it.

    Raises:
        ValueError: the pieces are longer than the text.
    """
    n_filler = n_tokens - sum(len(text) for _, text in pieces)
    if n_filler < 0:
        raise ValueError(f"the pieces have {n_tokens - n_filler} bytes, the text only {n_tokens}; give fewer pieces")
    words = filler(rng, n_filler)
    parts: list[bytes] = []
    starts: list[int] = []
    used = length = 0
    for place, text in pieces:
        cut = max(used, words.find(b" ", min(int(place * n_filler), n_filler - 1)) + 1)
        cut = min(cut, n_filler) if place < 1 else n_filler
        parts += [words[used:cut], text]
        starts.append(length + cut - used)
        length += cut - used + len(text)
        used = cut
    parts.append(words[used:n_filler])
    return b"".join(parts), starts


def training_text(rng: np.random.Generator, mix: Mix) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Return a text of `mix.n_tokens` tokens, and which of them can be known from what stands before.

    These are the answers to questions, and the strings that come a second time but for their first two letters.
    """
    pieces: list[tuple[float, bytes, slice]] = []
    for fact in draw_facts(rng, mix.n_facts, mix.near):
        stated = rng.random() * 0.9
        asked = stated + (1 - stated) * rng.random()
        asks = fact.question + fact.value + b"; "
        pieces.append((stated, fact.statement, slice(0, 0)))
        pieces.append((asked, asks, slice(len(fact.question), len(fact.question) + ANSWER_BYTES)))
    for _ in range(mix.n_copies):
        letters = bytes(rng.integers(ord("a"), ord("z") + 1, size=rng.integers(8, 17)).astype(np.uint8))
        first, second = sorted(rng.random(2))
        pieces.append((first, b"[" + letters + b"] ", slice(0, 0)))
        pieces.append((second, b"[" + letters + b"] ", slice(3, len(letters) + 2)))
    pieces.sort(key=lambda piece: piece[0])
    text, starts = join(rng, [(place, part) for place, part, _ in pieces], mix.n_tokens)
    known = np.zeros(mix.n_tokens, dtype=np.bool_)
    for start, (_, _, where) in zip(starts, pieces, strict=True):
        known[start + where.start : start + where.stop] = True
    return np.frombuffer(text, dtype=np.uint8), known


def _one_of(rng: np.random.Generator, words: Sequence[bytes]) -> bytes:
    return words[int(rng.integers(len(words)))]
