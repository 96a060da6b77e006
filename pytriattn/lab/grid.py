"""The documents of a run, and the cells that it consists of."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pytriattn.lab.documents import Document, Tokens
from pytriattn.lab.errors import LabError
from pytriattn.lab.model_input import begin_tokens, chat_pieces, generate_after, tokens_of
from pytriattn.lab.results import FLOOR, NOTHING, CellKey, EvalResults
from pytriattn.lab.rules import PINNED
from pytriattn.lab.rules.base import Rule
from pytriattn.lab.settings import HALVES, EvalSettings
from pytriattn.lab.tasks import Family, families_of
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.source import SourceText
from pytriattn.lab.writing.writer import Writer
from pytriattn.llama import Llama

__all__ = ["FULL", "Job", "Subject", "check_fits", "jobs_of", "write_documents"]

FULL = "full"


@dataclass(frozen=True, eq=False)
class Subject:
    """A document of a run.

    Attributes:
        family: the kind of the document.
        tasks: the tasks of this kind that are wanted.
        index: the number of the document.
        document: the document.
    """

    family: Family
    tasks: tuple[str, ...]
    index: int
    document: Document


@dataclass(frozen=True, eq=False)
class Job:
    """A cell to compute.

    Attributes:
        key: the key of the cell.
        subject: the document.
        rule: the rule to read it under; the full cache for the floor.
    """

    key: CellKey
    subject: Subject
    rule: Rule

    @property
    def tokens(self) -> Tokens | None:
        """The tokens that are read in place of the document; None: the document itself."""
        document = self.subject.document
        return {FLOOR: document.floor, NOTHING: document.nothing}.get(self.key.rule)

    @property
    def cost(self) -> int:
        """Tokens to read."""
        document = self.subject.document
        if self.rule.reads_question:
            return sum(q.at + len(q.prompt) + len(q.answer) for q in document.questions)
        return document.cost


def write_documents(llm: Llama, settings: EvalSettings, source: SourceText, results: EvalResults) -> list[Subject]:
    """Write the documents of a run; the same settings, model and text give the same ones.

    What the full cache has to generate for them is taken from the results, or stored there.

    Raises:
        LabError: a task does not fit `tokens`, or the text is too short.
    """
    half, begin, chat = source.half(settings.half), begin_tokens(llm), chat_pieces(llm)
    subjects = []
    for family, tasks in families_of(settings.tasks):
        for index in range(settings.documents):
            seeds = [settings.seed, HALVES.index(settings.half), zlib.crc32(family.name.encode()), index]
            name = f"{family.name}/{index}"

            def generate(begin: Tokens, n: int, is_greedy: bool, *, name: str = name, index: int = index) -> Tokens:
                if len(results.generated.get(name, [])) != n:
                    said = generate_after(llm, begin, n, is_greedy=is_greedy, seed=settings.seed + index)
                    results.generated[name] = said.tolist()
                    results.save()
                return np.array(results.generated[name], dtype=np.int32)

            writer = Writer(lambda text: tokens_of(llm, text), half, np.random.default_rng(seeds), begin)
            document = family.make(TaskInput(writer, settings.tokens, index, chat, generate)).only(tasks)
            subjects.append(Subject(family, tasks, index, document))
    return subjects


def check_fits(subjects: Iterable[Subject], n_ctx_train: int) -> None:
    """Check that every document fits what the model was trained for.

    Raises:
        LabError: one does not; it names the task.
    """
    for subject in subjects:
        if 0 < n_ctx_train < subject.document.n_read:
            raise LabError(
                f"the task {subject.tasks[0]!r} reads {subject.document.n_read} tokens, and the model was trained "
                f"for {n_ctx_train}; "
                "lower --tokens, or leave the task out with --tasks"
            )


def jobs_of(subjects: Sequence[Subject], settings: EvalSettings) -> list[Job]:
    """Return all cells of a run, in the order to compute them: the full cache first, then rule by rule and budget by
    budget.

    Raises:
        LabError: a budget is too small.
    """
    rules = settings.all_rules()
    jobs = []
    for subject in subjects:
        document = subject.document
        budgets = settings.budgets_for(document, subject.tasks)
        for rule in rules:
            if rule.name.endswith(PINNED) and document.n_prompt == 0:
                continue
            for budget in [0] if rule.mode is None else budgets:
                _check_pinned(rule, subject, budget, settings)
                jobs.append(Job(CellKey(subject.family.name, subject.index, rule.name, budget), subject, rule))
        for name, text in ((FLOOR, document.floor), (NOTHING, document.nothing)):
            if text is not None:
                jobs.append(Job(CellKey(subject.family.name, subject.index, name, 0), subject, rules[0]))
    order = [rule.name for rule in rules]
    order[1:1] = FLOOR, NOTHING
    return sorted(jobs, key=lambda job: (order.index(job.key.rule), -job.key.budget))


def _check_pinned(rule: Rule, subject: Subject, budget: int, settings: EvalSettings) -> None:
    least = subject.document.n_prompt + settings.least_window + 1
    if rule.is_pinned and rule.mode is not None and budget < least:
        raise LabError(
            f"the rule {rule.name!r} protects the prompt of the task {subject.tasks[0]!r}: its "
            f"{subject.document.n_prompt} tokens and a window of {settings.least_window} need a budget of {least}, and "
            f"it is {budget}; raise the budget or --tokens, or leave the rule out"
        )
