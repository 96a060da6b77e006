"""Reading on from an evicted cache and scoring, going back, and the protection that stays."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from pytriattn import ContextFullError, InvalidTokenError, Llama, TriAttentionStats
from support.tiny_context import Tiny, Tokens


def test_scoring_on_is_what_one_pass_gives(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_threads=1, n_ctx=2048, budget=96, interval=32, window=16, mode="recent") as llm:
        whole = llm.logprobs(random_tokens[:400])
        llm.reset()
        first = llm.score_next(random_tokens[:256])  # ends where an eviction does
        assert llm.n_until_eviction == 32
        second = llm.score_next(random_tokens[256:400])
        assert llm.tokens == random_tokens[:400].tolist()
    assert np.array_equal(first.logprobs, whole[:255])
    assert np.array_equal(second.logprobs, whole[256:])


def test_room_before_an_eviction_that_waits_for_its_second_reading(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    settings: dict[str, Any] = {"n_ctx": 2048, "budget": 96, "interval": 32, "window": 16, "reread": True}
    with Llama(smollm2, triattn_stats=smollm2_stats, **settings) as llm:
        tokens = llm.tokenize(long_text)
        for begin in range(0, 256, 64):
            llm.eval(tokens[begin : begin + 64])
            assert 0 < (llm.n_until_eviction or 0) <= 128


def test_logits_after_each_token_are_those_of_decoding(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_threads=1, n_ctx=2048, budget=96, interval=32, window=16, mode="recent") as llm:
        rows = llm.read_logits(random_tokens[:300])
        n_evictions = llm.kv_stats()["evictions"]
        assert rows.shape[0] == 300 and n_evictions == (300 - 96) // 32
        shifted = rows - rows.max(axis=1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted, dtype=np.float64).sum(axis=1, keepdims=True))
        expected = llm.logprobs(random_tokens[:300])
    found = logprobs[np.arange(299), random_tokens[1:300]]
    assert np.allclose(found, expected, atol=1e-4)


def test_going_back_needs_no_eviction_since(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_threads=1, n_ctx=2048, budget=96, interval=32, window=16, mode="recent") as llm:
        llm.eval(random_tokens[:128])
        expected = llm.score_next(random_tokens[300:310])
        assert llm.truncate(128) == 128
        llm.score_next(random_tokens[500:520])
        assert llm.truncate(128) == 128
        assert np.allclose(llm.score_next(random_tokens[300:310]).logprobs, expected.logprobs, atol=1e-5)
        llm.eval(random_tokens[:64])
        assert llm.truncate(128) == 0 and llm.tokens == []


def test_a_protected_prompt_stays_so_when_text_is_read_after_it(tiny: Tiny, random_tokens: Tokens) -> None:
    prompt, rest = random_tokens[:40], random_tokens[40:600]
    with Llama(
        tiny("llama"), n_threads=1, n_ctx=2048, budget=96, interval=32, window=16, mode="recent", protect_prompt=True
    ) as llm:
        llm.read_prompt(prompt)
        llm.eval(rest[:200])
        state = llm.save_state()
        assert isinstance(state, bytes)
        for _ in range(2):
            llm.eval(rest[200:400])
            llm.score_next(rest[400:])
            kept = llm.kept_positions(llm.attention_layers[0], 0)
            assert kept[:40].tolist() == list(range(40)) and kept[40] > 100
            llm.load_state(state)


def test_bad_input(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_threads=1, n_ctx=256) as llm:
        llm.eval(random_tokens[:100])
        for tokens, first in ((random_tokens[:5], 0), (random_tokens[:5], 6), (random_tokens[:0], 1)):
            with pytest.raises(InvalidTokenError):
                llm.score_next(tokens, first)
        with pytest.raises(ContextFullError, match="n_ctx 256"):
            llm.score_next(random_tokens[:200])
        assert llm.tokens == random_tokens[:100].tolist()
        assert llm.n_until_eviction is None
