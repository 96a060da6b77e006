"""Many prompts at once, on SmolLM2."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from pytriattn import ContextFullError, InvalidTokenError, Llama, TriAttentionStats

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def add(a, b):",
    "Water boils at",
    "My favourite colour is",
]


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=256, n_seq_max=3, seed=1) as llm:
        yield llm


def test_each_text_is_what_it_would_be_alone(llm: Llama) -> None:
    alone = [llm(prompt, max_tokens=10, temperature=0) for prompt in PROMPTS]
    together = llm.generate_batch(PROMPTS, max_tokens=10, temperature=0)
    assert [c["choices"][0]["text"] for c in together] == [c["choices"][0]["text"] for c in alone]
    assert [c["usage"] for c in together] == [c["usage"] for c in alone]  # type: ignore[index]
    # and one call after it finds the context as it should be
    assert llm(PROMPTS[0], max_tokens=10, temperature=0)["choices"][0] == alone[0]["choices"][0]  # type: ignore[index]


def test_texts_of_different_lengths(llm: Llama) -> None:
    """When one ends the next takes its place."""
    prompts = [llm.tokenize(prompt) for prompt in PROMPTS] * 2
    stops = [llm(prompt, max_tokens=12, temperature=0)["choices"][0]["text"][6:9] for prompt in PROMPTS[:2]]
    found = llm.generate_batch(prompts, max_tokens=12, temperature=0, stop=stops)
    assert len(found) == 10
    reasons = [c["choices"][0]["finish_reason"] for c in found]
    assert reasons[:2] == ["stop", "stop"]
    assert "length" in reasons
    assert [c["choices"][0] for c in found[:5]] == [c["choices"][0] for c in found[5:]]
    assert not any(stop in c["choices"][0]["text"] for c in found for stop in stops)


def test_seeds(llm: Llama) -> None:
    first = llm.generate_batch([PROMPTS[1]] * 3, max_tokens=12, seed=7)
    again = llm.generate_batch([PROMPTS[1]] * 3, max_tokens=12, seed=7)
    texts = [c["choices"][0]["text"] for c in first]
    assert texts == [c["choices"][0]["text"] for c in again]
    assert len(set(texts)) == 3


@pytest.mark.slow
def test_limits(llm: Llama) -> None:
    assert llm.generate_batch([]) == []
    (nothing,) = llm.generate_batch([PROMPTS[0]], max_tokens=0)
    assert (nothing["choices"][0]["text"], nothing["usage"]["completion_tokens"]) == ("", 0)
    (full,) = llm.generate_batch([PROMPTS[0]], max_tokens=None, ignore_eos=True)
    assert full["choices"][0]["finish_reason"] == "length"
    assert full["usage"]["total_tokens"] in (256, 257)  # the last token need not be read


def test_a_bad_prompt_is_refused_before_anything_is_read(llm: Llama) -> None:
    llm(PROMPTS[0], max_tokens=2)
    n_tokens = llm.n_tokens
    for prompts, error in (
        (["fine", [999_999]], InvalidTokenError),
        (["fine", [1] * 300], ContextFullError),
        ([[]], InvalidTokenError),
    ):
        with pytest.raises(error):
            llm.generate_batch(prompts)  # type: ignore[arg-type]
    assert llm.n_tokens == n_tokens


@pytest.mark.slow
def test_each_sequence_has_its_own_budget(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    options = {"triattn_stats": smollm2_stats, "budget": 96, "interval": 32, "window": 32, "n_ctx": 4096}
    with Llama(smollm2, n_seq_max=2, **options) as llm:  # type: ignore[arg-type]
        assert llm.kv_stats()["cells_allocated"] == 2 * 256
        found = llm.generate_batch(PROMPTS[:3], max_tokens=200, temperature=0, ignore_eos=True)
        assert [c["usage"]["completion_tokens"] for c in found] == [200] * 3
        assert llm.kv_stats()["evictions"] == 3 * 3
    with Llama(smollm2, **options) as llm:  # type: ignore[arg-type]
        alone = llm(PROMPTS[2], max_tokens=200, temperature=0, ignore_eos=True)
    assert found[2]["choices"][0]["text"][:40] == alone["choices"][0]["text"][:40]  # type: ignore[index]
