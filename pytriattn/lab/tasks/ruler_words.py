"""Three tasks after RULER (arXiv 2404.06654) that ask for lists: variables in a chain, the commonest words, the most
frequent codes.
"""

from __future__ import annotations

import numpy as np

from pytriattn.lab.documents import Document, Question
from pytriattn.lab.tasks.base import TaskInput
from pytriattn.lab.tasks.ruler_haystacks import noise_sentences
from pytriattn.lab.writing.words import WORDS
from pytriattn.lab.writing.writer import Insert, as_tokens

__all__ = ["common_words", "frequent_words", "variable_tracking"]

_HOPS = 4
_N_CHAINS = 3


def _list_question(task: str, given: TaskInput, prompt: str, items: list[str]) -> Question:
    writer = given.writer
    answer = as_tokens(writer.tokenize(" " + ", ".join(items)))
    return Question(task, given.n_tokens, as_tokens(writer.tokenize(prompt)), answer, references=tuple(items))


def variable_tracking(given: TaskInput) -> Document:
    """Return chains of variables in noise: the first of a chain gets a number, each further one the value of the one
    before.
    """
    rng, n = given.rng, given.n_tokens
    letters = [f"{a}{b}{c}" for a in "XYZVWK" for b in "ABCDEFGH" for c in "KLMNPRST"]
    names = [str(name) for name in rng.choice(np.array(letters, dtype=object), _N_CHAINS * (_HOPS + 1), False)]
    writer = given.writer
    names = writer.alike(" VAR {}", names)
    chains = [names[i::_N_CHAINS][: len(names) // _N_CHAINS] for i in range(_N_CHAINS)]
    values = [str(number) for number in rng.integers(10_000, 100_000, 2 * _N_CHAINS)]
    steps: list[tuple[float, Insert]] = []
    for c, chain in enumerate(chains):
        # in the variant, the chains have one another's values, so the number asked for leads to another chain
        other = values[(c + 1) % _N_CHAINS]
        times = np.sort(rng.random(len(chain)))
        steps.append((float(times[0]), writer.pair(f" VAR {chain[0]} = {{}}.", values[c], other)))
        for i in range(1, len(chain)):
            text = writer.tokenize(f" VAR {chain[i]} = VAR {chain[i - 1]}.")
            steps.append((float(times[i]), Insert(text, text)))
    steps.sort(key=lambda step: step[0])
    head = writer.bos + writer.tokenize(
        "Memorize and track the chains of variable assignments in the following text.\n"
    )
    inserts = [insert for _, insert in steps]
    room = n - len(head) - 96
    ages = [round((1 - time) * room) for time, _ in steps]
    written = writer.weave(inserts, ages, n, head, noise_sentences(writer))
    prompt = (
        f"\nQuestion: Which variables have the value {values[0]}?\n"
        f"Answer: The {len(chains[0])} variables with the value {values[0]} are:"
    )
    question = _list_question("ruler-vt", given, prompt, chains[0])
    return Document(written.true, (question,), written.false, len(head), n, written.nothing)


def _counted_words(
    given: TaskInput, task: str, n_asked: int, weights: list[float], names: list[str], question: str
) -> Document:
    """Return a text of words drawn with `weights`; the heaviest are asked for. In the variant other words have these
    weights.
    """
    writer, n, rng = given.writer, given.n_tokens, given.rng
    names = writer.alike(" {}", names)
    chosen = [str(name) for name in rng.permutation(np.array(names, dtype=object))[: len(weights)]]
    others = chosen[n_asked:] + chosen[:n_asked]
    p = np.array(weights[: len(chosen)]) / sum(weights[: len(chosen)])
    head = writer.bos + writer.tokenize("Read the following words, and memorize those that appear most often.\n")
    ids = [writer.tokenize(f" {name}") for name in chosen]
    false_ids = [writer.tokenize(f" {name}") for name in others]
    true, false = list(head), list(head)
    while len(true) < n:
        drawn = int(rng.choice(len(chosen), p=p))
        true += ids[drawn]
        false += false_ids[drawn]
    prompt = f"\nQuestion: {question}\nAnswer:"
    return Document(
        as_tokens(true[:n]),
        (_list_question(task, given, prompt, chosen[:n_asked]),),
        as_tokens(false[:n]),
        len(head),
        n,
    )


def common_words(given: TaskInput) -> Document:
    """Return a list of words, four of which appear ten times as often as the others."""
    n_asked, n_others = 4, 40
    weights = [10.0] * n_asked + [1.0] * n_others
    names = list(dict.fromkeys(WORDS))
    return _counted_words(
        given, "ruler-cwe", n_asked, weights, names, f"What are the {n_asked} most common words above?"
    )


def frequent_words(given: TaskInput) -> Document:
    """Return a list of made-up words whose frequencies follow a zeta distribution (exponent 2)."""
    n_asked = 3
    weights = [1.0 / (rank + 1) ** 2 for rank in range(24)]
    letters = "bcdfghjklmnpqrstvwz"
    draws = given.rng.choice(list(letters), (120, 5))
    names = list(dict.fromkeys("".join(row) for row in draws))
    question = f"What are the {n_asked} most frequently appearing coded words above?"
    return _counted_words(given, "ruler-fwe", n_asked, weights, names, question)
