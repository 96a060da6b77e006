"""``state-dfs``: a depth-first search, written down step by step; in the end the way back has to be told from
memory.
"""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.words import NODES
from pytriattn.lab.writing.writer import Writer, as_tokens

__all__ = ["search"]

_LONGEST_WAY = 24  # nodes on the way back


def search(given: TaskInput) -> Document:
    """Return a search that goes down and comes back by chance, and the way back from where it is to the root.

    Each way down (``From AB go down to CD.``) is written once. The way back names a node and has to say where it was
    entered from; only these names are scored. The floor has read the same search in a tree whose nodes have one
    another's names.
    """
    writer, n, rng = given.writer, given.n_tokens, given.rng
    names = writer.alike(" {}", [a + b for a in NODES for b in NODES])
    names = [str(name) for name in rng.permutation(np.array(names, dtype=object))]
    other = dict(zip(names, names[1:] + names[:1], strict=True))
    head = writer.bos + writer.tokenize("This is a depth-first search in a tree.\n")
    steps: list[tuple[str, str, str]] = []
    way, fresh, size = [names[0]], names[1:], len(head)
    # the way grows evenly from the root to its full length, so that its steps are of all ages
    while size < n:
        goal = 1 + round((_LONGEST_WAY - 1) * (size - len(head)) / max(1, n - len(head)))
        down = len(way) < 2 or (rng.random() < (0.8 if len(way) < goal else 0.35) and len(way) < _LONGEST_WAY)
        if down and not fresh:
            raise AssertionError("there are too few names for a tree of this size")
        step = (
            ("From {} go down to {}.", way[-1], fresh.pop(0)) if down else ("From {} go back to {}.", way[-1], way[-2])
        )
        way = [*way, step[2]] if down else way[:-1]
        steps.append(step)
        size += len(writer.tokenize(" " + step[0].format(step[1], step[2])))
    texts = [_text(writer, head, steps, {name: name for name in names}), _text(writer, head, steps, other)]
    begin = len(texts[0]) - n
    # what is too much is cut off behind the head: the oldest step
    true, false = (np.concatenate([text[: len(head)], text[len(head) + begin :]]) for text in texts)
    answer: list[int] = []
    scored: list[bool] = []
    for node, before in zip(way[:0:-1], way[-2::-1], strict=True):
        for text, counts in ((f" From {node} go back to", False), (f" {before}", True), (".", False)):
            ids = writer.tokenize(text)
            answer += ids
            scored += [counts] * len(ids)
    prompt = as_tokens(writer.tokenize("\nNow the whole way back to the root:"))
    question = Question("state-dfs", n, prompt, as_tokens(answer), scored=np.array(scored, dtype=np.bool_))
    return Document(true, (question,), false, len(head), n)


def _text(writer: Writer, head: list[int], steps: list[tuple[str, str, str]], name: dict[str, str]) -> np.ndarray:
    tokens = list(head)
    for text, at, to in steps:
        tokens += writer.tokenize(" " + text.format(name[at], name[to]))
    return as_tokens(tokens)
