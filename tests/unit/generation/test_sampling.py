"""What each sampling parameter does to a real model's text."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from pytriattn import Llama, SamplingParams

PROMPT = "The weather today is"


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=1024, seed=1) as llm:
        yield llm


def text(llm: Llama, **sampling: Any) -> str:
    return llm(PROMPT, max_tokens=24, **{"seed": 3, **sampling})["choices"][0]["text"]


def distinct(llm: Llama, **sampling: Any) -> int:
    tokens = list(llm.generate(llm.tokenize(PROMPT), max_tokens=120, ignore_eos=True, seed=3, **sampling))
    return len(set(tokens))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 1},
        {"top_p": 1e-6},
        {"min_p": 1.0},
        {"top_n_sigma": 1e-3},
        {"typical_p": 1.0, "top_k": 1, "temperature": 2.0},
        {"xtc_probability": 0.0, "top_k": 1},
        {"dynatemp_range": 0.5, "top_k": 1},
        {"samplers": ["top_k"], "top_k": 1},
    ],
    ids=str,
)
def test_what_leaves_one_token_is_greedy(llm: Llama, sampling: dict) -> None:
    assert text(llm, **{"temperature": 1.0, **sampling}) == text(llm, temperature=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    [
        {"typical_p": 0.2},
        {"xtc_probability": 1.0, "xtc_threshold": 0.02},
        {"mirostat_mode": 1},
        {"mirostat_mode": 2, "mirostat_tau": 3.0},
        {"dynatemp_range": 0.9},
        {"top_n_sigma": 0.5},
        {"frequency_penalty": 1.5},
        {"temperature": 1.8},
        {"samplers": ["temperature"]},
    ],
    ids=str,
)
def test_samplers_change_the_text(llm: Llama, sampling: dict) -> None:
    assert text(llm, **sampling) != text(llm)
    assert text(llm, **sampling) == text(llm, **sampling)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    [{"repeat_penalty": 1.5}, {"presence_penalty": 2.0}, {"dry_multiplier": 2.0, "dry_penalty_last_n": -1}],
    ids=str,
)
def test_penalties_make_for_variety(llm: Llama, sampling: dict) -> None:
    assert distinct(llm, temperature=0, **sampling) > distinct(llm, temperature=0)


def test_logit_bias(llm: Llama) -> None:
    first = next(llm.generate(llm.tokenize(PROMPT), temperature=0))
    assert first not in list(
        llm.generate(llm.tokenize(PROMPT), max_tokens=24, temperature=0, logit_bias={first: -math.inf})
    )
    assert list(llm.generate(llm.tokenize(PROMPT), max_tokens=4, temperature=0, logit_bias={300: 1000.0})) == [300] * 4
    assert text(llm, logit_bias={str(first): -100}) is not None  # OpenAI's form has texts as keys


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", math.nan),
        ("top_p", 1.5),
        ("typical_p", "high"),
        ("xtc_probability", -0.1),
        ("mirostat_mode", 3),
        ("mirostat_mode", 1.5),
        ("top_k", 1.5),
        ("seed", "x"),
        ("dry_base", True),
        ("samplers", "top_k"),
        ("samplers", ["no_such_sampler"]),
        ("dry_sequence_breakers", [1]),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", {1: math.nan}),
    ],
)
def test_values_that_make_no_sense(llm: Llama, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        llm(PROMPT, max_tokens=1, **{name: value})


def test_the_dataclass_checks_names() -> None:
    assert SamplingParams.checked(top_k=3).top_k == 3
    with pytest.raises(TypeError, match="'topk': besides the call's own there are .*top_k"):
        SamplingParams.checked(topk=3)
