"""Texts to ask a small model about: needles at depths from 0 to 100 %, asked at the end and once more later."""

from __future__ import annotations

import numpy as np

from hybrids.text import Fact, draw_facts, filler, join
from pytriattn.lab.documents import Document, Question, Tokens

__all__ = ["AT_END", "KINDS", "LATER", "N_LATER", "N_TOKENS", "write_document"]

N_TOKENS = 1024
N_LATER = 256
"""Tokens of filler between the end of the text and the questions that come later."""
N_PROMPT = 64  # tokens that can be pinned; the first needle stands in them
N_NEEDLES = 11
N_DISTRACTORS = 22
KINDS = ("needles", "distractors")
"""The kinds of texts, in turn: the needles alone; and among facts with like keys that nobody asks for."""
AT_END, LATER = "at_end", "later"


def write_document(index: int, seed: int = 1) -> Document:
    """Return the document of this number; its kind is ``KINDS[index % 2]``, a question's group is its depth in %."""
    rng = np.random.default_rng([seed, 1_000_000 + index])
    n_distractors = N_DISTRACTORS * (index % len(KINDS))
    facts = draw_facts(rng, N_NEEDLES + n_distractors, near=0.7)
    # one fact in three is a needle where there are distractors, so that their keys are alike
    order = rng.permutation(len(facts))
    needles = [facts[i] for i in order[:N_NEEDLES]]
    depths = [i / (N_NEEDLES - 1) for i in range(N_NEEDLES)]
    pieces = [(depth, fact.statement) for depth, fact in zip(depths, needles, strict=True)]
    pieces += [(float(rng.uniform(0.05, 0.95)), facts[i].statement) for i in order[N_NEEDLES:]]
    pieces.sort(key=lambda piece: piece[0])
    text, starts = join(rng, pieces, N_TOKENS)
    tokens = np.frombuffer(text + filler(rng, N_LATER)[:N_LATER], dtype=np.uint8).astype(np.int32)
    begins = {statement: start for (_, statement), start in zip(pieces, starts, strict=True)}
    questions = [
        _question(fact, task, at, f"{100 * depth:.0f}", at - begins[fact.statement])
        for task, at in ((AT_END, N_TOKENS), (LATER, N_TOKENS + N_LATER))
        for depth, fact in zip(depths, needles, strict=True)
    ]
    return Document(tokens, tuple(questions), floor=None, n_prompt=N_PROMPT, length=N_TOKENS)


def _question(fact: Fact, task: str, at: int, group: str, age: int) -> Question:
    return Question(task, at, _tokens(fact.question), _tokens(fact.value), group, age)


def _tokens(text: bytes) -> Tokens:
    return np.frombuffer(text, dtype=np.uint8).astype(np.int32)
