"""``chat``: many turns in the model's own template; questions about the system prompt and about early, middle and late
turns.
"""

from __future__ import annotations

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.writing.facts import Fact, draw_facts
from pytriattn.lab.writing.writer import as_tokens

__all__ = ["chat"]

_ANSWER_TOKENS = 72  # of an answer of the assistant
_EVERY = 2  # turns of the user from one fact to the next


def chat(given: TaskInput) -> Document:
    """Return a conversation in which the user tells facts between other things; the system prompt tells one and sets a
    password.
    """
    writer, pieces, n = given.writer, given.chat, given.n_tokens
    rule = _rule(given)
    facts = [rule, *draw_facts(writer, 16)]
    waiting = facts[1:]
    head = pieces.before_system or list(writer.bos)
    true, false = [*head, *rule.insert.true], [*head, *rule.insert.false]
    n_prompt = len(true)
    _both(true, false, pieces.before_first_user)
    places: list[tuple[Fact, int]] = [(rule, n_prompt)]
    turn = 0
    while True:
        user = writer.tokenize("Tell me more about this, please.")
        fact = waiting[0] if turn % _EVERY == 0 and waiting else None
        told = fact.insert if fact is not None else None
        size = len(told.true) if told else len(user)
        left = n - len(true) - size - len(pieces.before_answer)
        if left < _ANSWER_TOKENS // 2:
            break
        if told is not None and fact is not None:
            waiting.pop(0)
            true += told.true
            false += told.false
            places.append((fact, len(true)))
        else:
            _both(true, false, user)
        _both(true, false, pieces.before_answer)
        is_last = n - len(true) - _ANSWER_TOKENS < _ANSWER_TOKENS + len(pieces.before_user) + 48
        _both(true, false, writer.prose(min(left, _ANSWER_TOKENS if not is_last else left)))
        if len(true) >= n:
            break
        _both(true, false, pieces.before_user)
        turn += 1
    _both(true, false, writer.prose(n - len(true)) if len(true) < n else [])
    questions = []
    for i, (fact, end) in enumerate(places):
        asked = writer.tokenize(fact.question)
        prompt = as_tokens([*pieces.before_user, *asked, *pieces.before_answer, *writer.tokenize(fact.stem)])
        third = 3 * end // n
        group = "system" if i == 0 else ("early", "middle", "late")[min(third, 2)]
        questions.append(Question("chat", n, prompt, fact.answer, group, n - end))
    return Document(as_tokens(true[:n]), tuple(questions), as_tokens(false[:n]), n_prompt, n)


def _both(true: list[int], false: list[int], tokens: list[int]) -> None:
    true += tokens
    false += tokens


def _rule(given: TaskInput) -> Fact:
    """Return the rule of the system prompt: a password."""
    writer = given.writer
    text = "You are a helpful assistant. The secret password is {}."
    values = [str(number) for number in given.rng.integers(1000, 10_000, 8)]
    true, false = writer.alike(text, values)[:2]
    question, stem = "What is the secret password?", "The secret password is"
    return Fact(
        writer.pair(text, true, false),
        as_tokens(writer.tokenize(f"{question} {stem}")),
        as_tokens(writer.tokenize(f" {true}")),
        true,
        text.format(true),
        text.format(false),
        question,
        stem,
    )
