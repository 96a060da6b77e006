"""Reading a document under a rule and asking its questions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn.lab.documents import Document, Question, Tokens
from pytriattn.session.session import Session

__all__ = ["Answered", "Reading", "Reference", "read_document"]

STEP = 128  # tokens that are read at once
N_REFERENCE = 128  # the likeliest tokens of which the full cache's probabilities are kept
_MORE_THAN_ASKED = 16  # tokens to generate beyond the length of a list


class Reference(NamedTuple):
    """What the full cache predicts at each place of an answer: its likeliest tokens, int32 [n, k], and ln p, float32
    [n, k].
    """

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answered:
    """How a question was answered.

    Attributes:
        task: the task that the question counts for.
        group: the group that it is reported in.
        age: tokens between the place that it asks for and the question; None: no single place.
        logprob: natural logarithm of the probability of the answer's scored tokens.
        n_scored: how many tokens these are.
        is_exact: whether greedy decoding would give the scored tokens.
        found: share of the references in a generated answer; None: nothing was generated.
        top1: share of places where the likeliest token is the full cache's; None: not compared.
        divergence: mean KL divergence from the full cache in nats, over its 128 likeliest tokens and all others
            together.
        first_mismatch: first place where the likeliest token is another one than the full cache's; the length if there
            is none.
    """

    task: str
    group: str
    age: int | None
    logprob: float
    n_scored: int
    is_exact: bool
    found: float | None = None
    top1: float | None = None
    divergence: float | None = None
    first_mismatch: int | None = None


@dataclass(frozen=True)
class Reading:
    """What came of a document under a rule.

    Attributes:
        answers: the answers to its questions, in their order.
        n_evictions: evictions that took place.
        reference: the full cache's predictions, if predictions are compared.
    """

    answers: list[Answered]
    n_evictions: int
    reference: Reference | None = None


def read_document(
    llm: Session,
    document: Document,
    *,
    tokens: Tokens | None = None,
    is_pinned: bool = False,
    reads_question: bool = False,
    reference: Reference | None = None,
) -> Reading:
    """Read a document once and ask every question from what is left of it, evicting exactly where decoding would.

    Args:
        llm: a model with a budget or without; with ``protect_prompt`` if the prompt is to be pinned.
        document: the document to read.
        tokens: tokens to read in its place, such as its floor.
        is_pinned: whether the document's prompt is protected.
        reads_question: read text and question together, anew for each question, as one prompt.
        reference: the full cache's predictions; None although predictions are compared: this is the full cache.
    """
    reader = _Reader(llm, document, document.tokens if tokens is None else tokens, is_pinned, reference)
    before = llm.kv_stats()["evictions"]
    if reads_question:
        answers = [reader.read_with(question) for question in document.questions]
    else:
        answers = reader.read_once()
    return Reading(answers, llm.kv_stats()["evictions"] - before, reader.reference)


class _Reader:
    """Reads one document."""

    def __init__(
        self, llm: Session, document: Document, tokens: Tokens, is_pinned: bool, reference: Reference | None
    ) -> None:
        self._llm = llm
        self._document = document
        self._tokens = tokens
        self._is_pinned = is_pinned and document.n_prompt > 0
        self._is_full_reference = document.keeps_distributions and reference is None
        self.reference = reference

    def read_once(self) -> list[Answered]:
        """Read the text on from question to question, going back after each one."""
        self._begin()
        answers: list[Answered] = []
        stops = [(at, list(questions)) for at, questions in groupby(self._document.questions, key=lambda q: q.at)]
        for i, (at, questions) in enumerate(stops):
            self._read(self._tokens[len(self._llm.tokens) : at])
            is_last_stop = i + 1 == len(stops)
            needs_way_back = not is_last_stop or len(questions) > 1 or bool(questions[-1].references)
            state = self._llm.save_state() if needs_way_back else None
            for number, question in enumerate(questions, start=1):
                answers.append(self._ask(question, at, state))
                if not is_last_stop or number < len(questions):
                    self._go_back(at, state)
        return answers

    def read_with(self, question: Question) -> Answered:
        """Read text and question as one prompt."""
        self._llm.reset()
        prompt = np.concatenate([self._tokens[: question.at], question.prompt])
        self._llm.read_prompt(prompt[:-1], question=(question.at, len(prompt) - 1))
        return _answered(question, *self._score(prompt[-1:], question.answer))

    def _begin(self) -> None:
        self._llm.reset()
        if self._is_pinned:
            self._llm.read_prompt(self._tokens[: self._document.n_prompt])

    def _read(self, tokens: Tokens) -> None:
        while tokens.size:
            n = min(STEP, self._llm.n_until_eviction or STEP)
            self._llm.eval(tokens[:n])
            tokens = tokens[n:]

    def _go_back(self, at: int, state: bytes | None) -> None:
        if self._llm.truncate(at) != at:
            assert state is not None
            self._llm.load_state(state)

    def _ask(self, question: Question, at: int, state: bytes | None) -> Answered:
        if self._document.keeps_distributions:
            return self._compare(question)
        answered = _answered(question, *self._score(question.prompt, question.answer))
        if not question.references:
            return answered
        self._go_back(at, state)
        text = self._generate(question.prompt, len(question.answer) + _MORE_THAN_ASKED)
        share = sum(reference in text for reference in question.references) / len(question.references)
        return replace(answered, found=share)

    def _score(self, prompt: Tokens, answer: Tokens) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        found = self._llm.score_next(np.concatenate([prompt, answer]), len(prompt))
        return found.logprobs, found.is_best

    def _generate(self, prompt: Tokens, n_tokens: int) -> str:
        """Return what greedy decoding says after a question."""
        self._llm.eval(prompt)
        said: list[int] = []
        while len(said) < n_tokens:
            said.append(int(self._llm.logits.argmax()))
            self._llm.eval(said[-1:])
        return self._llm.detokenize(said)

    def _compare(self, question: Question) -> Answered:
        """Compare the predictions of an answer's tokens with the full cache's."""
        tokens = np.concatenate([question.prompt, question.answer])
        skipped = len(question.prompt) - 1
        logprobs, best, divergences, mismatches = [], [], [], []
        kept_tokens, kept_logprobs = [], []
        done = 0
        while done < len(tokens) - 1:
            n = min(STEP, self._llm.n_until_eviction or STEP, len(tokens) - 1 - done)
            rows = _log_softmax(self._llm.read_logits(tokens[done : done + n]))
            for i, row in enumerate(rows, start=done - skipped):
                if i < 0:
                    continue
                token, top = int(question.answer[i]), int(row.argmax())
                logprobs.append(row[token])
                best.append(top == token)
                if self._is_full_reference:
                    likeliest = np.argpartition(-row, min(N_REFERENCE, len(row) - 1))[:N_REFERENCE]
                    likeliest = likeliest[np.argsort(-row[likeliest])]
                    kept_tokens.append(likeliest.astype(np.int32))
                    kept_logprobs.append(row[likeliest])
                else:
                    assert self.reference is not None
                    divergences.append(_divergence(self.reference, i, row))
                    mismatches.append(top != int(self.reference.tokens[i, 0]))
            done += n
        if self._is_full_reference:
            self.reference = Reference(np.stack(kept_tokens), np.stack(kept_logprobs))
            divergences, mismatches = [0.0], [False]
        answered = _answered(question, np.array(logprobs), np.array(best))
        first = int(np.argmax(mismatches)) if any(mismatches) else len(question.answer)
        return replace(
            answered,
            top1=1.0 - float(np.mean(mismatches)),
            divergence=float(np.mean(divergences)),
            first_mismatch=first,
        )


def _answered(question: Question, logprobs: npt.NDArray[np.floating], is_best: npt.NDArray[np.bool_]) -> Answered:
    counts = np.ones(len(logprobs), dtype=np.bool_) if question.scored is None else question.scored
    logprob = float(logprobs[counts].sum(dtype=np.float64))
    return Answered(
        question.task, question.group, question.age, logprob, int(counts.sum()), bool(is_best[counts].all())
    )


def _log_softmax(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = rows - rows.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32)


def _divergence(reference: Reference, i: int, row: npt.NDArray[np.float32]) -> float:
    """Return KL(full || this) in nats over the full cache's likeliest tokens and all others together."""
    log_p, log_q = reference.logprobs[i].astype(np.float64), row[reference.tokens[i]].astype(np.float64)
    p, q = np.exp(log_p), np.exp(log_q)
    rest_p, rest_q = max(1.0 - p.sum(), 0.0), max(1.0 - q.sum(), 1e-12)
    rest = rest_p * np.log(rest_p / rest_q) if rest_p > 1e-9 else 0.0
    return float(max((p * (log_p - log_q)).sum() + rest, 0.0))
