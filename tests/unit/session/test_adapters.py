"""LoRA adapters, embeddings, and how a model is loaded."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from models import dense
from pytriattn import ContextError, InvalidTokenError, Llama, ModelLoadError, StateError
from support.lora_files import ALPHA, write_lora
from support.tiny_context import Tiny, Tokens

RANK = 4


@pytest.fixture
def lora(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return an adapter of the tiny llama, and the model with the adapter merged into its weights."""
    rng = np.random.default_rng(5)
    model = dense.llama()
    factors = {}
    for name in ("blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.2.ffn_up.weight"):
        n_out, n_in = model._tensors[name].shape
        a = rng.normal(0, 0.2, (RANK, n_in)).astype(np.float32)
        b = rng.normal(0, 0.2, (n_out, RANK)).astype(np.float32)
        factors[name] = (a, b)
        model._tensors[name] = model._tensors[name] + (ALPHA / RANK) * b @ a
    model.save(tmp_path / "merged.gguf")
    return write_lora(tmp_path / "lora.gguf", factors), tmp_path / "merged.gguf"


def test_an_adapter_is_as_good_as_merged_weights(
    tiny: Tiny, random_tokens: Tokens, lora: tuple[pathlib.Path, pathlib.Path]
) -> None:
    adapter, merged = lora
    text = random_tokens[:150]
    with Llama(merged, n_ctx=512) as llm:
        expected = llm.logprobs(text)
    with Llama(tiny("llama"), n_ctx=512) as llm:
        own = llm.logprobs(text)
        assert np.abs(own - expected).max() > 0.1
        llm.set_loras({adapter: 1.0})
        np.testing.assert_allclose(llm.logprobs(text), expected, atol=2e-2)
        llm.set_loras({str(adapter): 0.5})  # the same file, loaded once
        half = llm.logprobs(text)
        assert np.abs(half - expected).max() > 0.01
        llm.set_loras({})
        np.testing.assert_array_equal(llm.logprobs(text), own)
    with Llama(tiny("llama"), n_ctx=512, lora={adapter: 1.0}, budget=256, mode="recent") as llm:
        np.testing.assert_allclose(llm.logprobs(text), expected, atol=2e-2)


def test_adapters_that_do_not_fit(tiny: Tiny, random_tokens: Tokens, tmp_path: pathlib.Path) -> None:
    with Llama(tiny("llama"), n_ctx=512) as llm:
        own = llm.logprobs(random_tokens[:30])
        wide = {"blk.0.attn_q.weight": (np.zeros((4, 999), np.float32), np.zeros((128, 4), np.float32))}
        none = {"blk.9.attn_q.weight": (np.zeros((4, 64), np.float32), np.zeros((128, 4), np.float32))}
        for i, factors in enumerate((wide, none)):
            with pytest.raises(ModelLoadError, match="LoRA adapter"):
                llm.set_loras({write_lora(tmp_path / f"{i}.gguf", factors): 1.0})
        with pytest.raises(ModelLoadError, match="does not exist"):
            llm.set_loras({tmp_path / "nowhere.gguf": 1.0})
        with pytest.raises(ModelLoadError, match="LoRA adapter"):
            llm.set_loras({tiny("qwen3"): 1.0})
        np.testing.assert_array_equal(llm.logprobs(random_tokens[:30]), own)


def test_embeddings(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=256) as llm:
        texts = ["A cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose sharply in March."]
        one = llm.embed(texts[0])
        assert isinstance(one, np.ndarray)
        assert (one.shape, one.dtype) == ((576,), np.float32)
        several = llm.embed(texts, normalize=True)
        assert isinstance(several, np.ndarray)
        assert several.shape == (3, 576)
        np.testing.assert_allclose(np.linalg.norm(several, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(several[0], one / np.linalg.norm(one), atol=1e-4)
        assert several[0] @ several[1] > several[0] @ several[2]
        tokens = llm.embed(texts[0], pooling="none")
        assert isinstance(tokens, np.ndarray)
        assert tokens.shape == (len(llm.tokenize(texts[0])), 576)
        np.testing.assert_allclose(tokens.mean(axis=0), one, atol=1e-3)
        np.testing.assert_allclose(tokens[-1], llm.embed(texts[0], pooling="last"), atol=1e-3)
        with pytest.raises(InvalidTokenError):
            llm.embed(["fine", ""])
        with pytest.raises(InvalidTokenError, match="no texts"):
            llm.embed([])
        with pytest.raises(ContextError, match="pooling is 'max'"):
            llm.embed("a", pooling="max")


def test_progress_and_loading(smollm2: pathlib.Path) -> None:
    seen: list[float] = []
    for options in ({}, {"use_mmap": False}, {"tensor_split": [1.0], "main_gpu": 0, "split_mode": 0}):
        seen.clear()
        with Llama(smollm2, n_ctx=256, progress=seen.append, **options) as llm:  # type: ignore[arg-type]
            assert "Paris" in llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
        assert seen == sorted(seen)
        assert seen[-1] == 1.0

    def stop(done: float) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Llama(smollm2, n_ctx=256, progress=stop)
    with pytest.raises(ModelLoadError, match="tensor_split has 999 numbers"):
        Llama(smollm2, n_ctx=256, tensor_split=[1.0] * 999)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, random_tokens: Tokens) -> None:
    """Give tiny models, which have no tokenizer, tokens for every text."""
    monkeypatch.setattr(Llama, "tokenize", lambda *_, **__: random_tokens[:20].tolist())


@pytest.mark.usefixtures("words")
def test_states_and_embeddings_know_of_adapters(
    tiny: Tiny, random_tokens: Tokens, lora: tuple[pathlib.Path, pathlib.Path]
) -> None:
    adapter, merged = lora
    with Llama(merged, n_ctx=512) as llm:
        expected = llm.embed("some text")
    with Llama(tiny("llama"), n_ctx=512) as llm:
        plain = llm.embed("some text")
        llm.eval(random_tokens[:50])
        without = llm.save_state()
        llm.set_loras({adapter: 1.0})
        np.testing.assert_allclose(llm.embed("some text"), expected, atol=2e-2)
        assert np.abs(np.asarray(llm.embed("some text")) - plain).max() > 0.05
        llm.eval(random_tokens[:50])
        tokens, adapted = llm.tokens, llm.save_state()
        assert isinstance(without, bytes)
        assert isinstance(adapted, bytes)
        with pytest.raises(StateError, match="adapters was None"):
            llm.load_state(without)
        assert llm.tokens == tokens
        for scales in ({}, {adapter: 0.5}, {adapter: 0.0}):
            llm.set_loras(scales)
            with pytest.raises(StateError, match="adapters was"):
                llm.load_state(adapted)
        llm.load_state(without)  # a scale of 0 is none
        llm.set_loras({adapter: 1.0})
        llm.load_state(adapted)
        assert llm.tokens == tokens


@pytest.mark.usefixtures("words")
def test_embeddings_have_the_rope_settings_in_use(tiny: Tiny) -> None:
    with Llama(tiny("llama"), n_ctx=512) as llm:
        plain = llm.embed("some text that is longer")
    with Llama(tiny("llama"), n_ctx=512, rope_freq_scale=0.25) as llm:
        assert np.abs(np.asarray(llm.embed("some text that is longer")) - plain).max() > 1e-3
