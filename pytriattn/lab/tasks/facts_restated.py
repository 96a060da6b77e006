"""``facts-restated``: facts stated early and stated again later, in other words around them."""

from __future__ import annotations

from pytriattn.lab.documents import Document
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.facts import draw_facts, questions_about, spread_ages
from pytriattn.lab.writing.writer import Insert

__all__ = ["facts_restated"]

_N_FACTS = 8


def facts_restated(given: TaskInput) -> Document:
    """Return a text whose first half states facts and whose second half states them again; ages count from the second
    time.
    """
    writer, n = given.writer, given.n_tokens
    found = draw_facts(writer, _N_FACTS)
    order = given.rng.permutation(_N_FACTS)
    again = writer.tokenize(" As was said before:")
    first = [fact.insert for fact in found]
    second = [Insert(again + found[i].insert.true, again + found[i].insert.false) for i in order]
    ages = [n // 2 + age for age in spread_ages(_N_FACTS, n // 2)] + spread_ages(_N_FACTS, n // 2)
    text = writer.weave(first + second, ages, n, writer.bos)
    ends = [text.ends[_N_FACTS + list(order).index(i)] for i in range(_N_FACTS)]
    questions = tuple(questions_about(found, ends, "facts-restated", n))
    return Document(text.true, questions, text.false, 0, n, text.nothing)
