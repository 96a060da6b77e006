"""Saved states: a restored run goes on bit for bit, evictions and all."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from pytriattn import ContextError, ContextFullError, Llama, StateError, TriAttentionStats
from pytriattn._native import core
from pytriattn.gguf.identity import model_identity
from pytriattn.stats.layer_stats import LayerStats
from support.tiny_context import Tiny, Tokens, calibrated

BUDGET: dict[str, Any] = {"budget": 128, "mode": "random", "n_ctx": 4096, "seed": 3}


def calibrate_tiny(path: pathlib.Path) -> TriAttentionStats:
    """Return fitted statistics of a tiny model, which has no tokeniser to read a text with."""
    native = calibrated(core.Model(str(path)), fit=True)
    layers = tuple(LayerStats.from_native(layer) for layer in native.layers)
    return TriAttentionStats(
        layers=layers, model=model_identity(path), n_tokens=native.n_tokens, corpus_sha256="0" * 64, fit_r2=0.5
    )


def run_on(llm: Llama, tokens: list[int]) -> list[np.ndarray]:
    """Read tokens one by one and return the logits after each."""
    found = []
    for token in tokens:
        llm.eval([token])
        found.append(llm._open_context().logits())
    return found


# plain, sliding, shared, hybrid, latent, with a prediction layer, without flash attention
@pytest.mark.parametrize(
    "arch", ["llama", "gemma3", "gemma4", "lfm2", "falcon-h1", "deepseek2", "qwen35-mtp", "gpt-oss"]
)
@pytest.mark.parametrize("options", [{"n_ctx": 1024}, BUDGET], ids=["full", "budget"])
def test_a_restored_run_goes_on_bit_for_bit(tiny: Tiny, random_tokens: Tokens, arch: str, options: dict) -> None:
    text, rest = random_tokens[:300].tolist(), random_tokens[300:600].tolist()
    with Llama(tiny(arch), n_threads=1, **options) as llm:
        llm.eval(text)
        state = llm.save_state()
        assert isinstance(state, bytes)
        expected = run_on(llm, rest)
        kept = [llm.kept_positions(layer, 0).tolist() for layer in llm.attention_layers]
        if "budget" in options:
            assert llm.kv_stats()["evictions"] >= 3
        # back in the same context, after something else
        llm.eval([1, 2, 3])
        llm.load_state(state)
        assert llm.tokens == text
        assert llm.n_tokens == 300
        np.testing.assert_array_equal(run_on(llm, rest), expected)
    with Llama(tiny(arch), n_threads=1, **options) as llm:
        llm.load_state(state)
        np.testing.assert_array_equal(run_on(llm, rest), expected)
        assert [llm.kept_positions(layer, 0).tolist() for layer in llm.attention_layers] == kept


@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2"])
@pytest.mark.parametrize("n", [2, 20, 70, 300])
def test_many_tokens_at_once_are_read_bit_for_bit(tiny: Tiny, random_tokens: Tokens, arch: str, n: int) -> None:
    """llama.cpp searches for the cells of few and of many tokens from different places."""
    text, rest = random_tokens[:290].tolist(), random_tokens[290 : 290 + n].tolist()
    with Llama(tiny(arch), n_threads=1, **{**BUDGET, "interval": 32, "window": 16}) as llm:
        llm.eval(text)
        state = llm.save_state()
        assert isinstance(state, bytes)
        found = []
        for again in range(3):
            if again:
                llm.load_state(state)
            llm.eval(rest)
            kept = [llm.kept_positions(layer, 0).tolist() for layer in llm.attention_layers]
            found.append((llm.logits.tolist(), kept))
            llm.eval([1, 2, 3])
        assert found[0] == found[1] == found[2]


def test_a_state_needs_the_same_statistics(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    options: dict[str, Any] = {"budget": 128, "n_ctx": 512, "n_threads": 1}
    with Llama(smollm2, triattn_stats=smollm2_stats, **options) as llm:
        llm.eval([1, 2, 3])
        state = llm.save_state()
    assert isinstance(state, bytes)
    others = dataclasses.replace(smollm2_stats, corpus_sha256="0" * 64)
    with (
        Llama(smollm2, triattn_stats=others, **options) as llm,
        pytest.raises(StateError, match="statistics was"),
    ):
        llm.load_state(state)


@pytest.mark.slow
def test_a_real_model(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path, long_text: str
) -> None:
    options: dict[str, Any] = {
        "triattn_stats": smollm2_stats,
        "budget": 256,
        "n_ctx": 8192,
        "seed": 1,
        "type_k": "q8_0",
        "type_v": "q8_0",
    }
    with Llama(smollm2, **options) as llm:
        llm.eval(llm.tokenize(long_text)[:900])
        assert llm.save_state(tmp_path / "run.state") is None
        first = list(llm.generate(None, max_tokens=1, temperature=0))
        llm.load_state(tmp_path / "run.state")
        with pytest.raises(ContextError, match="logits"):
            llm.generate(None, max_tokens=1)
        llm.eval(first)
        expected = list(llm.generate(None, max_tokens=200, temperature=0, ignore_eos=True))
    with Llama(smollm2, **options) as llm:
        llm.load_state(tmp_path / "run.state")
        llm.eval(first)
        assert list(llm.generate(None, max_tokens=200, temperature=0, ignore_eos=True)) == expected
        assert llm.kv_stats()["cells_used"] < 256 + 128


def test_states_that_do_not_fit(tiny: Tiny, random_tokens: Tokens, tmp_path: pathlib.Path) -> None:
    with Llama(tiny("llama"), **BUDGET) as llm:
        llm.eval(random_tokens[:200])
        state = llm.save_state()
        assert isinstance(state, bytes)
        wrong = {
            "no saved state": b"nothing at all",
            "damaged": state[:1000] + bytes([state[1000] ^ 1]) + state[1001:],
            "is damaged": state[:-1],
            "version 9": state[:8] + (9).to_bytes(4, "little") + state[12:],
        }
        for message, data in wrong.items():
            with pytest.raises(StateError, match=message):
                llm.load_state(data)
        with pytest.raises(StateError, match="nowhere.state' cannot be read"):
            llm.load_state(tmp_path / "nowhere.state")
        assert llm.n_tokens == 200  # nothing has changed
    for path, changed, message in (
        ("qwen3", {}, "model was"),
        ("llama", {"budget": 200}, "eviction was"),
        ("llama", {"type_k": "q8_0"}, "type_k was 'f16' and is 'q8_0'"),
        ("llama", {"rope_freq_base": 5e4}, "rope was"),
    ):
        with Llama(tiny(path), **{**BUDGET, **changed}) as llm, pytest.raises(StateError, match=message):
            llm.load_state(state)
    with Llama(tiny("llama"), n_ctx=512, n_seq_max=2) as llm, pytest.raises(ContextError, match="n_seq_max=1"):
        llm.save_state()


def test_eval_appends(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_ctx=256) as llm:
        llm.eval(random_tokens[:100])
        llm.eval(random_tokens[100:150])
        assert llm.tokens == random_tokens[:150].tolist()
        with pytest.raises(ContextFullError):
            llm.eval(random_tokens[:200])
        assert llm.n_tokens == 150
        assert len(list(llm.generate(None, max_tokens=5, ignore_eos=True))) == 5
        # a prompt that begins with all of it reads the rest only
        llm.generate(random_tokens[:160])
        assert llm.kv_stats()["prompt_tokens_reused"] == 150


def test_a_second_reading_goes_on_bit_for_bit(tiny: Tiny, random_tokens: Tokens) -> None:
    """It reads what is new since the last eviction, so a state has to know where that was."""
    path = tiny("llama")
    fitted = calibrate_tiny(path)
    options: dict[str, Any] = {"budget": 96, "interval": 32, "window": 16, "mode": "fitted", "reread": True}
    with Llama(path, triattn_stats=fitted, n_ctx=1024, n_threads=1, **options) as llm:
        run_on(llm, random_tokens[:140].tolist())  # evicted from at 128, 12 tokens ago
        state = llm.save_state()
        assert isinstance(state, bytes)
        expected = run_on(llm, random_tokens[140:200].tolist())
        kept = [llm.kept_positions(layer, 0).tolist() for layer in llm.attention_layers]
        assert llm.kv_stats()["evictions"] >= 2
        llm.load_state(state)
        np.testing.assert_array_equal(run_on(llm, random_tokens[140:200].tolist()), expected)
        assert [llm.kept_positions(layer, 0).tolist() for layer in llm.attention_layers] == kept


def test_a_loaded_state_can_be_cut_back_to_its_last_eviction(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_threads=1, **{**BUDGET, "interval": 32, "window": 16}) as llm:
        for token in random_tokens[:172].tolist():
            llm.eval([token])  # evicted from at 160
        state = llm.save_state()
        assert isinstance(state, bytes)
        for n, left in ((161, 161), (160, 160), (159, 0)):
            llm.load_state(state)
            assert llm.truncate(n) == left
