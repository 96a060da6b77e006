#!/usr/bin/env python3
"""Needles under eviction: ``python -m hybrids.experiment MODEL.gguf RESULTS.jsonl`` in the folder tools.

Every cell (one text under one arm and share) is stored as soon as it is there. The same command goes on after an
interruption, and more documents or arms are added to the same file. It needs pytriattn, and no PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hybrids.arms import ARMS, Arm
from hybrids.documents import AT_END, KINDS, N_LATER, N_TOKENS, write_document
from hybrids.text import Mix, training_text
from pytriattn import Llama, StatsWarning, TriAttentionStats, calibrate
from pytriattn.lab.documents import Document
from pytriattn.lab.reading import Answered, read_document
from pytriattn.lab.rules.base import Given, chooser_of
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.eviction import USUAL_WINDOW

SHARES = (97.5, 95.0, 90.0, 75.0, 50.0, 25.0)
LOW_SHARES = (75.0, 50.0, 25.0)
INTERVAL = 24  # so that there is an eviction even where 97.5 % are kept
N_CTX = 2048
N_CALIBRATION = 4096  # the most tokens that statistics are of
CALIBRATION_SEED = 77


def calibration_text() -> str:
    """Return text like that of the documents, with facts and questions that no document has."""
    rng = np.random.default_rng(CALIBRATION_SEED)
    texts = [training_text(rng, Mix(N_TOKENS, 24, 2))[0].tobytes().decode() for _ in range(N_CALIBRATION // N_TOKENS)]
    return "".join(texts)


def wide_window(budget: int) -> int:
    """Return the window of mode ``fitted`` in this measurement."""
    return max(USUAL_WINDOW, budget * 3 // 10)


def budget_of(share: float, arm: Arm, attention_share: float) -> int:
    """Return the keys that each head keeps of a document."""
    kept = share / 100
    return round(N_TOKENS * (1 - (1 - kept) * attention_share if arm.is_scaled else kept))


class Experiment:
    """A model, its statistics, and the results file."""

    def __init__(self, model: Path, results: Path, n_threads: int) -> None:
        """Open the results file.

        Raises:
            SystemExit: the file holds results of another model or version.
        """
        self._model, self._results, self._n_threads = model, results, n_threads
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        made_with = {"model": model.name, "sha256": digest, "pytriattn": version("pytriattn"), "interval": INTERVAL}
        self.done = self._read_results(made_with)
        with Llama(model, n_ctx=N_CTX, n_threads=n_threads) as llm:
            self._attention_share = len(llm.attention_layers) / gguf_info(model).n_layer
        self._stats: dict[int, TriAttentionStats] = {}

    def _read_results(self, made_with: dict[str, Any]) -> set[tuple[str, float, int]]:
        if not self._results.exists():
            self._results.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
            return set()
        first, *rows = map(json.loads, self._results.read_text(encoding="utf-8").splitlines())
        if first != made_with:
            raise SystemExit(f"{self._results} was made with {first}, not with {made_with}; give another file")
        return {(row["arm"], row["share"], row["document"]) for row in rows}

    def run(self, names: Sequence[str], documents: range) -> None:
        """Compute the cells that are not there."""
        for name in names:
            arm = ARMS[name]
            shares = (100.0,) if arm.rule.mode is None else SHARES if arm.is_everywhere else LOW_SHARES
            for share in shares:
                missing = [index for index in documents if (name, share, index) not in self.done]
                if missing:
                    self._run_arm(name, arm, share, missing)

    def _run_arm(self, name: str, arm: Arm, share: float, documents: Sequence[int]) -> None:
        budget = budget_of(share, arm, self._attention_share)
        stats = arm.change(self._statistics(arm.n_calibration)) if arm.rule.needs_stats else None
        given = Given(0, {layer.layer: layer for layer in stats.layers} if stats else {})
        options: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": self._n_threads}
        if arm.rule.mode is not None:
            options |= {"budget": budget, "mode": arm.rule.mode, "interval": INTERVAL, "triattn_stats": stats}
            if arm.has_wide_window or arm.rule.mode == "fitted":
                options["window"] = wide_window(budget)
            options |= {"protect_prompt": arm.rule.is_pinned, **arm.rule.settings}
        if arm.rule.mode == "custom":
            options["chooser"] = chooser_of(arm.rule, given)
        with Llama(self._model, **options) as llm:
            for index in documents:
                given.memory.clear()
                start = time.monotonic()
                document = write_document(index)
                if arm.rule.reads_question:  # the question stands at the end of the prompt, so there is no later one
                    document = document.only((AT_END,))
                reading = read_document(
                    llm, document, is_pinned=arm.rule.is_pinned, reads_question=arm.rule.reads_question
                )
                row = {"arm": name, "share": share, "budget": budget if arm.rule.mode else 0, "document": index}
                row |= {"kind": KINDS[index % len(KINDS)], "evictions": reading.n_evictions}
                row |= {"seconds": round(time.monotonic() - start, 2), "answers": _answers(document, reading.answers)}
                with self._results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                self.done.add((name, share, index))
        print(f"{time.strftime('%H:%M:%S')} {name} {share:g} %, {len(documents)} documents", flush=True)

    def _statistics(self, n_tokens: int) -> TriAttentionStats:
        """Return statistics of so many tokens of text like that of the documents; 0: of the bundled text."""
        if n_tokens not in self._stats:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StatsWarning)  # a fit that foresees little is a result, not a mistake
                budget = None if n_tokens else N_TOKENS // 2
                with Llama(self._model, n_ctx=N_CTX, budget=budget, n_threads=self._n_threads) as llm:
                    if n_tokens:
                        found = calibrate(llm, calibration_text(), n_tokens=n_tokens, n_threads=self._n_threads)
                    else:
                        assert llm.triattn_stats is not None
                        found = llm.triattn_stats
            self._stats[n_tokens] = found
        return self._stats[n_tokens]


def _answers(document: Document, answers: Sequence[Answered]) -> list[list[Any]]:
    """Return [task, depth in %, whether it is right, ln p] for each question."""
    return [
        [answer.task, int(question.group), answer.is_exact, round(answer.logprob, 4)]
        for question, answer in zip(document.questions, answers, strict=True)
    ]


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--arms", default=",".join(ARMS), help="names, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    names = arguments.arms.split(",")
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        parser.error(f"there is no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    assert N_TOKENS + N_LATER < N_CTX
    Experiment(arguments.model, arguments.results, arguments.threads).run(names, range(arguments.documents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
