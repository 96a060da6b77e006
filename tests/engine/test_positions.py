"""Positions through the `Llama` class: LongRoPE, a user's own RoPE settings, and texts beyond the trained context."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pytriattn import ContextError, ContextWarning, Llama, UnsupportedModelError
from pytriattn._native import core
from support.tiny_context import Tiny, Tokens


def test_long_rope_goes_by_n_ctx_and_not_by_the_cells(tiny: Tiny, random_tokens: Tokens) -> None:
    """llama.cpp chooses the frequencies by the size of the cache, which is 256 cells with this budget: room for all of
    the text.
    """
    text = random_tokens[:200]

    def logprobs(n_ctx: int, budget: int | None) -> np.ndarray:
        with Llama(tiny("phi3"), n_ctx=n_ctx, budget=budget, mode="recent") as llm:
            return llm.logprobs(text)

    long, short = logprobs(1024, None), logprobs(512, None)
    assert np.abs(long - short).max() > 0.01
    np.testing.assert_array_equal(logprobs(1024, 128), long)
    np.testing.assert_array_equal(logprobs(512, 128), short)


def test_a_cache_that_would_take_the_wrong_frequencies_is_refused(tiny: Tiny) -> None:
    """The core, where contexts of different sizes may share a model, does not choose by itself."""
    eviction = core.EvictionConfig(mode="recent", budget=128)
    model = core.Model(str(tiny("phi3")))
    with pytest.raises(UnsupportedModelError, match="up to 512 positions.*256 cells.*use_long_rope"):
        core.Context(model, core.DecoderParams(n_ctx=1024, eviction=eviction))
    core.Context(model, core.DecoderParams(n_ctx=512, eviction=eviction))
    model.use_long_rope()
    core.Context(model, core.DecoderParams(n_ctx=1024, eviction=eviction))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_freq_base": 5e4},
        {"rope_freq_scale": 0.25},
        {"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 512},
        {"rope_scaling_type": 2, "rope_freq_scale": 0.5, "yarn_beta_fast": 16.0, "yarn_attn_factor": 1.1},
    ],
)
def test_rope_settings_reach_the_model(tiny: Tiny, random_tokens: Tokens, rope: dict) -> None:
    text = random_tokens[:150]
    with Llama(tiny("qwen3"), n_ctx=512) as llm:
        own = llm.logprobs(text)
    with Llama(tiny("qwen3"), n_ctx=512, **rope) as llm:
        full = llm.logprobs(text)
    with Llama(tiny("qwen3"), n_ctx=512, budget=128, mode="recent", **rope) as llm:
        np.testing.assert_array_equal(llm.logprobs(text), full)
    assert np.abs(full - own).max() > 0.01


def test_a_scaling_that_is_the_models_own_changes_nothing(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_ctx=256) as llm:
        own = llm.logprobs(random_tokens[:50])
    with Llama(tiny("llama"), n_ctx=256, rope_scaling_type="none", rope_freq_base=10000.0, rope_freq_scale=1.0) as llm:
        np.testing.assert_array_equal(llm.logprobs(random_tokens[:50]), own)


def test_texts_beyond_the_trained_context_are_warned_of_once(tiny: Tiny, random_tokens: Tokens) -> None:
    text = np.concatenate([random_tokens, random_tokens])  # the tiny models say 2048
    with Llama(tiny("llama"), budget=128, mode="recent", n_ctx=10_000_000) as llm:
        assert llm.kv_stats()["cells_allocated"] == 256
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llm.logprobs(text[:2048])
        with pytest.warns(ContextWarning, match="beyond the 2048 positions") as caught:
            llm.logprobs(text[:2049])
            llm.logprobs(text[:2100])
            list(llm.generate(text[:2100], max_tokens=3, ignore_eos=True))
        assert len(caught) == 1


def test_generation_across_the_trained_context(tiny: Tiny, random_tokens: Tokens) -> None:
    text = np.concatenate([random_tokens, random_tokens])[:2040]
    with Llama(tiny("llama"), budget=128, mode="recent", n_ctx=4096, seed=1) as llm:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tokens = llm.generate(text, max_tokens=30, ignore_eos=True)
            for _ in range(9):  # the last of these is at position 2048, and read when the next one is asked for
                next(tokens)
        with pytest.warns(ContextWarning) as caught:
            assert len(list(tokens)) == 21
        assert len(caught) == 1


def test_a_model_stretched_by_yarn_is_trained_for_more(tiny: Tiny, random_tokens: Tokens) -> None:
    text = np.concatenate([random_tokens, random_tokens])[:2500]
    rope = {"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 2048}
    with (
        Llama(tiny("llama"), budget=128, mode="recent", n_ctx=8192, **rope) as llm,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        assert np.isfinite(llm.logprobs(text)).all()


def test_a_model_that_llama_cpp_cannot_run_with_flash_attention(tiny: Tiny, random_tokens: Tokens) -> None:
    """With it an assertion fails in llama.cpp, which ends the process."""
    with pytest.raises(ContextError, match="plm with flash attention"):
        Llama(tiny("plm"), n_ctx=256, flash_attn=True)
    with Llama(tiny("plm"), n_ctx=256) as llm:
        assert np.isfinite(llm.logprobs(random_tokens[:40])).all()
