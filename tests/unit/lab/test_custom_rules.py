"""Rules in Python under the engine's own evictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytriattn import EvalSettings, LabError, Llama, Rule, TriAttentionStats, register_rule, run_eval
from pytriattn.lab import runner
from pytriattn.lab.documents import Document
from pytriattn.lab.reading import Reading, read_document
from pytriattn.lab.rules import RULES
from pytriattn.lab.rules.base import Given, LayerView, View, chooser_of
from pytriattn.lab.rules.published_score import published_score

SMALL = {"n_ctx": 512, "budget": 96, "interval": 32, "window": 16}


def kept_after(llm: Llama, tokens: list[int]) -> list[list[int]]:
    """Read tokens, evicting where decoding would, and return what each head keeps."""
    for start in range(0, len(tokens), 32):
        llm.eval(tokens[start : start + 32])
    return [llm.kept_positions(layer, head).tolist() for layer, head in llm.attention_heads]


@pytest.mark.slow
def test_the_published_score_in_python_keeps_what_the_engine_keeps(
    smollm2: Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    rule = Rule("again", "the published score", score=published_score, needs_stats=True)
    given = Given(0, {layer.layer: layer for layer in smollm2_stats.layers})
    with Llama(smollm2, triattn_stats=smollm2_stats, mode="per_layer_head", **SMALL) as llm:
        tokens = llm.tokenize(long_text[:4000])[:160]
        expected = kept_after(llm, tokens)
    with Llama(smollm2, mode="custom", chooser=chooser_of(rule, given), **SMALL) as llm:
        found = kept_after(llm, tokens)
        assert llm.kv_stats()["evictions"] == 2
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(expected, found, strict=True)]
    # scores that are computed on the host may differ in the last bits, which can swap two keys
    assert np.mean(shared) > 0.99 and min(shared) > 0.95


@pytest.mark.slow
def test_values_and_origins_are_those_of_the_tokens(smollm2: Path, long_text: str) -> None:
    seen: list[np.ndarray] = []

    def score(layer: LayerView, view: View, given: Given) -> np.ndarray:
        origins = layer.origins()
        assert origins.shape == layer.keys().shape[:2] == layer.values().shape[:2]
        given.memory.setdefault("positions", []).append(view.position)
        if layer.layer == 0:
            seen.append(origins[0][~view.is_protected])
        return origins.astype(float)  # the newest keys

    given = Given()
    with Llama(smollm2, mode="custom", chooser=chooser_of(Rule("newest", "", score=score), given), **SMALL) as llm:
        tokens = llm.tokenize(long_text[:4000])[:160]
        found = kept_after(llm, tokens)
    with Llama(smollm2, mode="recent", **SMALL) as llm:
        assert kept_after(llm, tokens) == found
    assert sorted(set(given.memory["positions"])) == [128, 160]
    assert seen[1].tolist() == [*range(36, 144)]


@pytest.mark.slow
def test_a_run_with_a_rule_of_ones_own(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytriattn.lab.rules.RULES", dict(RULES))

    def broken(layer: LayerView, view: View, given: Given) -> np.ndarray:
        return np.zeros((layer.n_head_kv, 3))

    register_rule(Rule("broken", "too few scores", score=broken))
    settings = EvalSettings(rules=("broken",), tasks=("facts",), tokens=512, budgets=(96,), documents=1)
    read = read_document

    def read_under_budget(llm: Llama, document: Document, **options: Any) -> Reading:
        return Reading([], 0) if llm.budget is None else read(llm, document, **options)

    monkeypatch.setattr(runner, "read_document", read_under_budget)
    with pytest.raises(LabError, match=r"the rule 'broken': it gives scores of shape \[3, 3\] for layer 0"):
        run_eval(smollm2, settings)
