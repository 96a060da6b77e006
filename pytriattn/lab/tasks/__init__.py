"""The tasks: each is a function from a writer to a document with questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytriattn.lab.documents import Document
from pytriattn.lab.errors import LabError
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.tasks.chat import chat
from pytriattn.lab.tasks.copying import copying
from pytriattn.lab.tasks.facts import facts
from pytriattn.lab.tasks.facts_restated import facts_restated
from pytriattn.lab.tasks.needle import needle
from pytriattn.lab.tasks.perplexity import perplexity
from pytriattn.lab.tasks.replay import replay
from pytriattn.lab.tasks.ruler_haystacks import niah_multikey_2, niah_multikey_3, niah_single_1
from pytriattn.lab.tasks.ruler_words import common_words, frequent_words, variable_tracking
from pytriattn.lab.tasks.search import search
from pytriattn.lab.tasks.updates import updates

__all__ = ["FAMILIES", "TASKS", "Family", "families_of"]


@dataclass(frozen=True)
class Family:
    """A kind of document, and the tasks that ask about it.

    Attributes:
        name: the name of the kind.
        tasks: the tasks that its questions count for.
        make: writes a document.
    """

    name: str
    tasks: tuple[str, ...]
    make: Callable[[TaskInput], Document]


FAMILIES = (
    Family("facts", ("facts", "facts-later"), facts),
    Family("facts-restated", ("facts-restated",), facts_restated),
    Family("copy", ("copy",), copying),
    Family("needle", ("needle",), needle),
    Family("ruler-niah-single-1", ("ruler-niah-single-1",), niah_single_1),
    Family("ruler-niah-multikey-2", ("ruler-niah-multikey-2",), niah_multikey_2),
    Family("ruler-niah-multikey-3", ("ruler-niah-multikey-3",), niah_multikey_3),
    Family("ruler-vt", ("ruler-vt",), variable_tracking),
    Family("ruler-cwe", ("ruler-cwe",), common_words),
    Family("ruler-fwe", ("ruler-fwe",), frequent_words),
    Family("chat", ("chat",), chat),
    Family("perplexity", ("perplexity",), perplexity),
    Family("state-dfs", ("state-dfs",), search),
    Family("state-updates", ("state-updates",), updates),
    Family("replay", ("replay",), replay),
)
TASKS = tuple(task for family in FAMILIES for task in family.tasks)


def families_of(tasks: Sequence[str]) -> list[tuple[Family, tuple[str, ...]]]:
    """Return the kinds of documents that these tasks ask about, each with the tasks that are wanted.

    Raises:
        LabError: a task is unknown, or none is named.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        named = f"the task {unknown[0]!r} is unknown" if unknown else "no task is named"
        raise LabError(f"{named}; there are {', '.join(TASKS)}")
    found = []
    for family in FAMILIES:
        wanted = tuple(task for task in family.tasks if task in tasks)
        if wanted:
            found.append((family, wanted))
    return found
