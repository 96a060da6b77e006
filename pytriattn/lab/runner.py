"""Running the quality lab: cell by cell, each stored as soon as it is there."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from pytriattn._native import core
from pytriattn.gguf.identity import check_model_file, model_identity
from pytriattn.lab.errors import LabError
from pytriattn.lab.grid import FULL, Job, Subject, check_fits, jobs_of, write_documents
from pytriattn.lab.reading import Answered, Reading, Reference, read_document
from pytriattn.lab.results import FLOOR, NOTHING, Cell, EvalResults
from pytriattn.lab.rules.base import Given, Rule, chooser_of
from pytriattn.lab.settings import EvalSettings
from pytriattn.lab.writing.source import SourceText
from pytriattn.llama import Llama
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.eviction import KeyScoreOptions
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["Progress", "run_eval"]

TASKS_VERSION = 6
"""Goes up with every change of a task or a rule that changes figures."""
_LONGEST_QUESTION = 120  # tokens; a standing question has at most 128, and may be cut into other tokens
_ROOM = 1024  # tokens of a context beyond a document: a second turn, questions, generated answers

Progress = Callable[[int, int, str], object]
"""Called with tokens read, tokens to read in all, and what comes next."""


def run_eval(
    model_path: str | os.PathLike[str],
    settings: EvalSettings | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    text: str | os.PathLike[str] | None = None,
    triattn_stats: str | os.PathLike[str] | TriAttentionStats | None = None,
    again: Sequence[str] = (),
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> EvalResults:
    """Measure what rules for keeping keys lose.

    A cell is one document under one rule and budget. Each is stored in the file `output` as soon as it has been
    computed, and cells that the file holds are not computed again: an interrupted run goes on.

    Args:
        model_path: a GGUF file.
        settings: what to measure; None: the default rules and every task, at ratio 4.
        output: the results file; None: results are kept in memory alone.
        text: a text file that ordinary text is taken from; None: Python's manual.
        triattn_stats: as in `Llama`.
        again: names of rules whose cells of this run are computed again, since their code has changed.
        n_threads: CPU threads; None: as `Llama`.
        progress: called before each cell with (tokens read, tokens in all, the next cell).

    Returns:
        All cells of the file, those of former runs included.

    Raises:
        LabError: rules, tasks, budgets, the text, the model or the results file do not fit together.
        ModelLoadError, UnsupportedModelError, StatsError: as `Llama`.
    """
    settings = settings or EvalSettings()
    _check_again(again, settings)
    source = SourceText.load(None if text is None else os.fspath(text))
    path = check_model_file(model_path)
    if triattn_stats is not None and not isinstance(triattn_stats, TriAttentionStats):
        triattn_stats = TriAttentionStats.load(triattn_stats)
    results = EvalResults.open(
        output if output is None else Path(output), _made_with(path, settings, source, triattn_stats)
    )
    runner = _Runner(path, settings, results, triattn_stats, n_threads, progress or (lambda done, total, name: None))
    runner.run(source, again)
    return results


def _check_again(again: Sequence[str], settings: EvalSettings) -> None:
    known = {FLOOR, NOTHING, *(rule.name for rule in settings.all_rules())}
    for name in again:
        if name not in known:
            raise LabError(f"the rule {name!r} is to be computed again, but is none of the rules of this run; add it")


def _made_with(
    path: Path, settings: EvalSettings, source: SourceText, stats: TriAttentionStats | None
) -> dict[str, Any]:
    """Return all that has to be the same in one results file."""
    identity = model_identity(path)
    return {
        "pytriattn": version("pytriattn"),
        "llama.cpp": core.LLAMA_CPP_COMMIT,
        "tasks": TASKS_VERSION,
        "model": path.name,
        "model_name": identity.name,
        "model_sha256": _sha256(path),
        "statistics": "bundled text" if stats is None else f"{stats.n_tokens} tokens, text {stats.corpus_sha256}",
        "text": source.name,
        "text_sha256": source.sha256,
        "tokens": settings.tokens,
        "half": settings.half,
        "seed": settings.seed,
        "window": settings.window,
        "n_sink": settings.n_sink,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class _Runner:
    """One run."""

    def __init__(
        self,
        path: Path,
        settings: EvalSettings,
        results: EvalResults,
        stats: TriAttentionStats | None,
        n_threads: int | None,
        progress: Progress,
    ) -> None:
        self._path = path
        self._settings = settings
        self._results = results
        self._stats = stats
        self._n_threads = n_threads
        self._progress = progress
        self._references: dict[Subject, Reference] = {}
        self._known: dict[Subject, tuple[str, ...]] = {}
        self._given = Given()  # of the rule that is open
        self._n_done = self._n_total = 0

    def run(self, source: SourceText, again: Sequence[str]) -> None:
        """Compute the cells that are not there, and those of the rules `again`."""
        n_ctx_train = gguf_info(self._path).n_ctx_train or 0
        with self._open(None) as llm:
            subjects = write_documents(llm, self._settings, source, self._results)
            check_fits(subjects, n_ctx_train)
            jobs = jobs_of(subjects, self._settings)
            for job in jobs:
                if job.key.rule in again:
                    self._forget(job)
            waiting = [job for job in jobs if not self._is_there(job)]
            # what predictions are compared with is not stored
            compared = {job.subject for job in waiting if job.subject.document.keeps_distributions}
            waiting = [job for job in jobs if job in waiting or (job.key.rule == FULL and job.subject in compared)]
            self._known = {job.subject: _known_questions(llm, job) for job in waiting if job.rule.knows_questions}
            self._n_total = sum(job.cost for job in waiting)
            for job in waiting:
                if job.rule.mode is None:
                    self._compute(llm, job)
        for _, group in groupby([job for job in waiting if job.rule.mode is not None], key=_opened_with):
            cells = list(group)
            first = cells[0]
            known = self._known[first.subject] if first.rule.knows_questions else None
            with self._open(first.rule, first.key.budget, known) as llm:
                for job in cells:
                    self._compute(llm, job)
        self._progress(self._n_total, self._n_total, "done")

    def _open(self, rule: Rule | None, budget: int = 0, known_questions: tuple[str, ...] | None = None) -> Llama:
        settings = self._settings
        factor = 2 if "perplexity" in settings.tasks else 1
        options: dict[str, Any] = {"n_ctx": factor * settings.tokens + _ROOM, "n_threads": self._n_threads}
        if rule is None or rule.mode is None:
            return Llama(self._path, **options)
        options |= {
            "budget": budget,
            "mode": rule.mode,
            "window": settings.window,
            "n_sink": settings.n_sink,
            "seed": settings.seed,
            "protect_prompt": rule.is_pinned,
        }
        if rule.needs_stats:
            options["triattn_stats"] = self._statistics(options)
        if rule.mode == "custom":
            layers = self._stats.layers if rule.needs_stats and self._stats is not None else ()
            self._given = Given(settings.seed, {layer.layer: layer for layer in layers})
            options["chooser"] = chooser_of(rule, self._given)
        if known_questions is not None:
            options["key_score"] = KeyScoreOptions(standing_questions=known_questions)
        return Llama(self._path, **{**options, **rule.settings})

    def _statistics(self, options: dict[str, Any]) -> TriAttentionStats:
        """Return the statistics to score with, measured once if none were given."""
        if self._stats is None:
            with Llama(self._path, **{**options, "mode": "fitted"}) as llm:
                self._stats = llm.triattn_stats
        assert self._stats is not None
        return self._stats

    def _compute(self, llm: Llama, job: Job) -> None:
        self._progress(self._n_done, self._n_total, f"{job.key.rule} {job.key.budget or ''} {job.subject.family.name}")
        document = job.subject.document
        self._given.memory.clear()
        start = time.monotonic()
        reading = self._read(llm, job)
        self._n_done += job.cost
        if job.key.rule == FULL and reading.reference is not None:
            self._references[job.subject] = reading.reference
        if not self._is_there(job):
            seconds = round(time.monotonic() - start, 3)
            answers = self._of_other_tasks(job) + reading.answers
            self._results.add(job.key, Cell(answers, reading.n_evictions, document.length, seconds))

    def _of_other_tasks(self, job: Job) -> list[Answered]:
        """Return what the stored cell has of tasks that this run does not ask for."""
        cell = self._results.cells.get(job.key)
        return [answer for answer in cell.answers if answer.task not in job.subject.tasks] if cell else []

    def _forget(self, job: Job) -> None:
        """Drop the stored answers of the job's tasks."""
        others = self._of_other_tasks(job)
        cell = self._results.cells.pop(job.key, None)
        if cell is not None and others:
            self._results.cells[job.key] = replace(cell, answers=others)

    def _is_there(self, job: Job) -> bool:
        """Return whether the cell is stored, with an answer for each task that the document is asked for."""
        cell = self._results.cells.get(job.key)
        asked = {question.task for question in job.subject.document.questions}
        return cell is not None and asked <= {answer.task for answer in cell.answers}

    def _read(self, llm: Llama, job: Job) -> Reading:
        document = job.subject.document
        return read_document(
            llm,
            document,
            tokens=job.tokens,
            is_pinned=job.rule.is_pinned,
            reads_question=job.rule.reads_question,
            reference=self._references.get(job.subject),
        )


def _opened_with(job: Job) -> tuple[str, int, Subject | None]:
    """Return what a model is opened for: the next job goes on with it if this is the same."""
    return job.key.rule, job.key.budget, job.subject if job.rule.knows_questions else None


def _known_questions(llm: Llama, job: Job) -> tuple[str, ...]:
    """Return what a document is asked, each question once; those that are too long to be read alone are left out."""
    prompts = [question.prompt for question in job.subject.document.questions]
    return tuple(dict.fromkeys(llm.detokenize(p.tolist()) for p in prompts if len(p) <= _LONGEST_QUESTION))
