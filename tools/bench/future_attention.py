#!/usr/bin/env python3
"""What could be kept at best: an oracle that knows the future attention, in the quality lab.

    python tools/bench/future_attention.py MODEL.gguf RESULTS.json [--ratios 4] [--documents 1] [--tasks facts,copy]
        [--sum] [--one-set]

A first pass reads a document and its questions with the full cache, and computes the attention that each key gets from
every later token. A second pass reads the document under a budget and keeps the keys that will get the most of it: the
largest attention of any later query of the KV head, or with --sum that of all later queries together, times the norm of
the value. With --one-set all heads of all layers keep the same tokens: those with the largest mean over heads, each
head's scores divided by their mean.

RESULTS.json is a file of ``pytriattn-eval`` that has the full cache and the floor of these documents; the cells of the
rule `future` are added, or of `future_sum`, `future_one_set`, `future_sum_one_set`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytriattn import EvalResults, EvalSettings, KeyScoreOptions, Llama
from pytriattn._native import core
from pytriattn.cli.sizes import positives
from pytriattn.lab.documents import Document, Tokens
from pytriattn.lab.grid import write_documents
from pytriattn.lab.reading import Reference, read_document
from pytriattn.lab.results import Cell, CellKey
from pytriattn.lab.rules.base import LayerView, View, keep_best
from pytriattn.lab.scoring import score_tasks
from pytriattn.lab.tasks import TASKS
from pytriattn.lab.writing.source import SourceText
from pytriattn.model_info.reader import gguf_info

WINDOW = 16  # who knows the future needs no window; the engine must have one
TINY = 1e-30  # at a text's end no key has a future
BLOCK = 64  # tokens read at once, of which the engine keeps all queries
Floats = npt.NDArray[np.float32]


class How(NamedTuple):
    """What of the future counts: with `is_sum` the attention of all later queries together, or else the largest; with
    `one_set` its mean over heads, or else each head's own.
    """

    is_sum: bool
    one_set: bool

    @property
    def rule(self) -> str:
        """The rule's name in the results."""
        return "future" + self.is_sum * "_sum" + self.one_set * "_one_set"


class Future:
    """The attention that the keys of one document will get: for each layer and KV head, from any query of a block of
    tokens and of all questions.
    """

    def __init__(self, llm: Llama, document: Document, scale: float | None, how: How) -> None:
        """Read a document and its questions with a cache that holds all of them. `scale` is that of the logits; None:
        the usual one.
        """
        self._join = np.add if how.is_sum else np.maximum
        self._one_set = how.one_set
        self._llm = llm
        self._scale = scale
        self._n = len(document.tokens)
        self._found: dict[tuple[int, int], Floats] = {}  # (first token of the block, layer) -> [n_head_kv, n]
        llm.reset()
        for at, queries in self._read(document.tokens):
            self._add(at, queries, self._n)
        state = llm.save_state()
        for question in document.questions:
            llm.truncate(question.at)
            for _, queries in self._read(np.concatenate([question.prompt, question.answer])):
                self._add(question.at, queries, question.at)
            assert state is not None
            llm.load_state(state)

    def _read(self, tokens: Tokens) -> Iterator[tuple[int, list[tuple[npt.NDArray[np.int32], Floats]]]]:
        """Yield where each block begins, and the queries of each layer: positions [m], rows [m, n_head, head_dim]."""
        context = self._llm._open_context()
        for begin in range(0, len(tokens), BLOCK):
            at = len(self._llm.tokens)
            self._llm.eval(tokens[begin : begin + BLOCK])
            layers = []
            for index in range(len(context.layers)):
                queries = core.testing.queries(context, 0, index)
                is_new = queries.positions >= at
                layers.append((queries.positions[is_new], queries.rows[is_new]))
            yield at, layers

    def _add(self, begin: int, queries: list[tuple[npt.NDArray[np.int32], Floats]], n_keys: int) -> None:
        """Note down what the first `n_keys` keys get from queries that come after `begin` tokens."""
        context = self._llm._open_context()
        for index, ((at, rows), layer) in enumerate(zip(queries, context.eviction_view(0).layers, strict=True)):
            keys = layer.keys()  # [n_head_kv, n, head_dim]
            n_head_kv, n, d = keys.shape
            scale = self._scale or d**-0.5
            grouped = rows.reshape(len(at), n_head_kv, -1, d).transpose(1, 2, 0, 3).reshape(n_head_kv, -1, d)
            logits = scale * grouped @ keys.transpose(0, 2, 1)  # [n_head_kv, group * m, n]
            logits.reshape(n_head_kv, -1, len(at), n)[..., np.arange(n)[None] > at[:, None]] = -np.inf
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            most = self._join.reduce(weights / weights.sum(axis=-1, keepdims=True), axis=1)
            n_known = min(n, n_keys)
            most = np.pad(most[:, :n_known], ((0, 0), (0, self._n - n_known)))
            known = self._found.get((begin, index))
            self._found[begin, index] = most if known is None else self._join(known, most)

    def choose(self, view: View) -> list[npt.NDArray[np.bool_]]:
        """Return the keys that stay: those that will get the most attention."""
        places = {layer.layer: index for index, layer in enumerate(view.layers)}

        def score(layer: LayerView) -> Floats:
            later = [
                most
                for (at, index), most in self._found.items()
                if index == places[layer.layer] and at >= view.position
            ]
            coming = self._join.reduce(later, axis=0) if later else np.zeros((layer.n_head_kv, self._n), np.float32)
            of_keys = np.take_along_axis(coming, np.minimum(layer.origins(), self._n - 1), axis=1)
            return np.asarray(of_keys * np.linalg.norm(layer.values(), axis=-1))

        if not self._one_set:
            return keep_best(view, score)
        means = [of_keys / (of_keys.mean(axis=1, keepdims=True) + TINY) for of_keys in map(score, view.layers)]
        of_tokens = np.concatenate(means).mean(axis=0)
        return keep_best(view, lambda layer: np.tile(of_tokens, (layer.n_head_kv, 1)))


def add_cells(path: Path, file: Path, settings: EvalSettings, how: How, n_threads: int | None) -> EvalResults:
    """Compute the cells of the oracle that the results file lacks."""
    results = EvalResults.load(file)
    scale = 1.0 if gguf_info(path).architecture == "gemma3" else None  # its queries have been scaled before
    room = 2 * settings.tokens + 1024
    full = Llama(path, n_ctx=room, n_threads=n_threads)
    everything = Llama(
        path,
        budget=room,
        n_ctx=room,
        n_threads=n_threads,
        key_score=KeyScoreOptions(use_fit=False, stride=1, standing_weight=0.0, question_weight=0.0),
    )
    with full, everything:
        for subject in write_documents(full, settings, SourceText.load(None), results):
            document = subject.document
            budgets = settings.budgets_for(document, subject.tasks)
            keys = [CellKey(subject.family.name, subject.index, how.rule, budget) for budget in budgets]
            waiting = [key for key in keys if key not in results.cells]
            if not waiting:
                continue
            reference: Reference | None = None
            if document.keeps_distributions:
                reference = read_document(full, document).reference
            future = Future(everything, document, scale, how)
            for key in waiting:
                with Llama(
                    path,
                    mode="custom",
                    chooser=future.choose,
                    budget=key.budget,
                    window=WINDOW,
                    n_ctx=room,
                    n_threads=n_threads,
                ) as llm:
                    reading = read_document(llm, document, reference=reference)
                results.add(key, Cell(reading.answers, reading.n_evictions, document.length, 0.0))
                print(key, flush=True)
    return results


def main() -> None:
    """Compute the cells and print R."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--ratios", type=positives, default=(4,))
    parser.add_argument("--documents", type=int, default=1)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--sum", action="store_true")
    parser.add_argument("--one-set", action="store_true")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    settings = EvalSettings(
        rules=("recent",),
        tasks=tuple(args.tasks.split(",")),
        documents=args.documents,
        tokens=args.tokens,
        ratios=args.ratios,
        window=WINDOW,
    )
    how = How(args.sum, args.one_set)
    results = add_cells(args.model, args.results, settings, how, args.threads)
    for ratio in args.ratios:
        for task, score in score_tasks(results, how.rule, ("ratio", ratio)).items():
            if task in settings.tasks and score.retained is not None:
                print(f"{ratio:3} {task:24} {score.retained:.2f}")


if __name__ == "__main__":
    main()
