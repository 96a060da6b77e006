"""``facts`` and ``facts-later``: facts stated once and asked for once, right after the text, and once more after a
second turn.
"""

from __future__ import annotations

from pytriattn.lab.documents import Document
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.facts import draw_facts, questions_about, spread_ages
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["facts"]

_NUMBERS = (10, 16, 6)  # of facts, in turn
_IN_PROMPT = 1
_LATER = 256  # tokens of the second turn


def facts(given: TaskInput) -> Document:
    """Return a text with facts of all ages; the first one stands in the prompt. A second turn of other text follows."""
    writer, n = given.writer, given.n_tokens
    found = draw_facts(writer, _NUMBERS[given.index % len(_NUMBERS)] + _IN_PROMPT)
    begin = writer.bos + writer.tokenize("Remember this.")
    heads = [begin, list(begin), list(begin)]
    for fact in found[:_IN_PROMPT]:
        heads[0] += fact.insert.true
        heads[1] += fact.insert.false
        heads[2] += writer.prose(len(fact.insert.true))
    n_head = len(heads[0])
    stated = found[_IN_PROMPT:]
    text = writer.weave([f.insert for f in stated], spread_ages(len(stated), n, room=n_head + 96), n, heads[0])
    text.false[:n_head], text.nothing[:n_head] = heads[1], heads[2]
    turn = as_tokens(writer.tokenize("\nUser: Thank you. Now something else.") + writer.prose(_LATER))[:_LATER]
    later = n + len(turn)
    ends = [n_head] * _IN_PROMPT + text.ends
    groups = ["prompt"] * _IN_PROMPT + [""] * len(stated)
    questions = questions_about(found, ends, "facts", n, groups) + questions_about(
        found, ends, "facts-later", later, groups
    )
    tokens, floor, nothing = (as_tokens([*tokens, *turn]) for tokens in (text.true, text.false, text.nothing))
    return Document(tokens, tuple(questions), floor, n_head, n, nothing)
