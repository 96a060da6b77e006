"""Putting a document together: facts at given places of ordinary text, to an exact number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pytriattn.lab.documents import Tokens
from pytriattn.lab.errors import LabError
from pytriattn.lab.writing.source import SourceText, Tokenize

__all__ = ["Insert", "Written", "Writer", "as_tokens"]

_LEAST_FILLER = 48  # tokens before the first insert, so that some can be cut off to get the length right


def as_tokens(tokens: Sequence[int] | Tokens) -> Tokens:
    """Return int32 [n]."""
    return np.array(tokens, dtype=np.int32)


@dataclass(frozen=True)
class Insert:
    """A sentence that tells something, and the same one telling something else.

    Attributes:
        true: the ids of the sentence's tokens.
        false: the ids of the other sentence's tokens, as many.
    """

    true: list[int]
    false: list[int]


@dataclass(frozen=True, eq=False)
class Written:
    """A text, its variants, and where each insert ends in all of them.

    Attributes:
        true: the text, int32 [n].
        false: the text with inserts that say something else, int32 [n].
        nothing: the text with ordinary text in place of the inserts, int32 [n].
        ends: the token index at which each insert ends.
    """

    true: Tokens
    false: Tokens
    nothing: Tokens
    ends: list[int]


class Writer:
    """Writes texts in a model's tokens.

    Attributes:
        tokenize: token ids of a text.
        source: where ordinary text comes from.
        rng: what is drawn by chance.
    """

    def __init__(self, tokenize: Tokenize, source: SourceText, rng: np.random.Generator, bos: Sequence[int]) -> None:
        """Take a tokenizer, and the tokens that begin every text."""
        self.tokenize = tokenize
        self.source = source
        self.rng = rng
        self.bos = list(bos)
        self._sentences = source.sentences

    def filler(self) -> Iterator[list[int]]:
        """Yield the tokens of sentences in the order of the text, from a random one on."""
        start = int(self.rng.integers(len(self._sentences)))
        while True:
            yield self.tokenize(" " + self._sentences[start % len(self._sentences)])
            start += 1

    def prose(self, n_tokens: int) -> list[int]:
        """Return `n_tokens` tokens of sentences."""
        found: list[int] = []
        for sentence in self.filler():
            found += sentence
            if len(found) >= n_tokens:
                break
        return found[:n_tokens]

    def pair(self, text: str, true: str, false: str) -> Insert:
        """Return a sentence with ``{}`` filled in both ways; the values must have as many tokens (see `alike`)."""
        found = Insert(self.tokenize(text.format(true)), self.tokenize(text.format(false)))
        if len(found.true) != len(found.false):
            raise AssertionError(f"{true!r} and {false!r} have different numbers of tokens")
        return found

    def alike(self, text: str, values: Sequence[str]) -> list[str]:
        """Return those values that give `text` (with ``{}``) its most frequent number of tokens."""
        sizes = [len(self.tokenize(text.format(value))) for value in values]
        common = max(set(sizes), key=sizes.count)
        return [value for value, size in zip(values, sizes, strict=True) if size == common]

    def weave(
        self,
        inserts: Sequence[Insert],
        ages: Sequence[int],
        n_tokens: int,
        head: Sequence[int] = (),
        filler: Iterator[list[int]] | None = None,
    ) -> Written:
        """Return a text of exactly `n_tokens` with inserts whose ends lie about `ages` tokens before its end.

        Args:
            inserts: the sentences, oldest first.
            ages: the age of each insert in tokens, descending.
            n_tokens: the length of the text in tokens.
            head: token ids that the text begins with.
            filler: yields the text between inserts; None: sentences of the source.

        Raises:
            LabError: the inserts do not fit.
        """
        filler = filler or self.filler()
        needed = len(head) + _LEAST_FILLER + sum(len(insert.true) for insert in inserts)
        if needed > n_tokens:
            raise LabError(
                f"the facts of a task take {needed} tokens, more than the {n_tokens} of its text; raise --tokens"
            )
        true, false, nothing = list(head), list(head), list(head)
        ends: list[int] = []
        waiting = [(n_tokens - age - len(insert.true), insert) for insert, age in zip(inserts, ages, strict=True)]
        sizes = [len(insert.true) for insert in inserts]
        while len(true) < n_tokens or waiting:
            # what is still to come must find room, however long the filler's sentences are
            must = n_tokens - sum(sizes[len(ends) :])
            while (
                waiting and len(true) >= len(head) + _LEAST_FILLER and (waiting[0][0] <= len(true) or len(true) >= must)
            ):
                insert = waiting.pop(0)[1]
                true += insert.true
                false += insert.false
                nothing += self.prose(len(insert.true))
                ends.append(len(true))
            if len(true) < n_tokens or waiting:
                sentence = next(filler)[:_LEAST_FILLER]
                for text in (true, false, nothing):
                    text.extend(sentence)
        surplus = len(true) - n_tokens
        cut = slice(len(head), len(head) + surplus)
        first = ends[0] - sizes[0] if ends else len(true)
        if surplus > first - len(head):
            raise LabError(f"the facts of a task do not fit its text of {n_tokens} tokens; raise --tokens")
        for text in (true, false, nothing):
            del text[cut]
        return Written(as_tokens(true), as_tokens(false), as_tokens(nothing), [end - surplus for end in ends])
