"""Logits and embeddings as numpy arrays: without copies, and safe to keep whatever comes later."""

from __future__ import annotations

import gc
import pathlib

import numpy as np
import pytest

from pytriattn import ClosedError, ContextError, Llama
from pytriattn._native import core
from support.tiny_context import Tiny, TinyContext, Tokens


def address(array: np.ndarray) -> int:
    place: int = array.__array_interface__["data"][0]
    return place


def test_the_loop_of_those_who_draw_tokens_themselves(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=256) as llm:
        prompt = llm.tokenize("The capital of France is")
        expected = list(llm.generate(prompt, 8, temperature=0, ignore_eos=True))
        llm.reset()
        llm.eval(prompt)
        found: list[int] = []
        while len(found) < 8:
            found.append(int(llm.logits.argmax()))
            llm.eval(found[-1:])
        assert found == expected
        assert "Paris" in llm.detokenize(found)


def test_logits_predict_what_logprobs_measures(smollm2_core: Llama) -> None:
    llm, tokens = smollm2_core, smollm2_core.tokenize("Roses are red, violets are blue")
    measured = llm.logprobs(tokens)
    llm.reset()
    llm.eval(tokens[:-1])
    logits = llm.logits.astype(np.float64)
    assert (logits.shape, llm.logits.dtype) == ((llm.n_vocab(),), np.float32)
    log_sum = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
    assert logits[tokens[-1]] - log_sum == pytest.approx(measured[-1], abs=1e-3)


def test_asking_again_costs_no_copy(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_ctx=256) as llm:
        llm.eval(random_tokens[:8])
        first, second = llm.logits, llm.logits
        assert np.shares_memory(first, second)
        assert first.base is not None
        assert not first.flags.owndata
        for array in (first, first[10:20], first.reshape(16, -1)):
            with pytest.raises(ValueError, match="read-only"):
                array[..., 0] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)


def test_memory_is_used_again_once_nobody_holds_it(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_ctx=256) as llm:
        llm.eval(random_tokens[:8])
        logits = llm.logits
        part, place = logits[5:], address(logits)
        del logits
        llm.eval(random_tokens[8:9])
        assert address(llm.logits) != place  # a view of a part still holds it
        place = address(llm.logits)
        del part
        llm.eval(random_tokens[9:10])
        assert address(llm.logits) == place


@pytest.mark.parametrize(
    "options", [{}, {"budget": 96, "mode": "recent", "interval": 16, "window": 16}], ids=["full", "budget"]
)
def test_arrays_outlive_later_steps(tiny: Tiny, random_tokens: Tokens, options: dict) -> None:
    """Every array keeps its values through evictions, resets, other texts, states, the end of the model and of
    everything.
    """
    path = tiny("llama")
    with Llama(path, n_ctx=1024, **options) as other:
        expected = []
        for token in random_tokens[:200]:
            other.eval([token])
            expected.append(other.logits.copy())
    llm = Llama(path, n_ctx=1024, **options)
    held = []
    for token in random_tokens[:200]:
        llm.eval([token])
        held.append(llm.logits)
    assert not any(np.shares_memory(a, b) for a, b in zip(held, held[1:], strict=False))
    state = llm.save_state()
    assert state is not None
    llm.reset()
    llm.logprobs(random_tokens[:300])
    llm.load_state(state)
    list(llm.generate(random_tokens[200:260], 20, ignore_eos=True))
    llm.close()
    del llm, other
    gc.collect()
    np.testing.assert_array_equal(np.stack(held), np.stack(expected))


def test_an_array_keeps_nothing_but_its_own_values(tiny: Tiny, random_tokens: Tokens) -> None:
    context = TinyContext(tiny("llama"), budget=None, n_ctx=256, n_seq_max=2).context
    context.read(0, random_tokens[:8])
    context.read(1, random_tokens[8:16])
    context.step([0, 1], [5, 6])
    rows = [context.logits(0), context.logits(1)]
    assert not np.shares_memory(*rows)
    assert np.shares_memory(rows[1], context.logits(-1))
    assert not np.array_equal(*rows)
    context.close()
    with pytest.raises(ClosedError):
        context.logits(0)
    assert all(np.isfinite(row).all() for row in rows)


def test_no_logits(tiny: Tiny, random_tokens: Tokens) -> None:
    llm = Llama(tiny("llama"), n_ctx=256)
    with pytest.raises(ContextError, match="nothing has been read"):
        _ = llm.logits
    llm.eval(random_tokens[:8])
    state = llm.save_state()
    assert state is not None
    llm.reset()
    with pytest.raises(ContextError, match="eval a token first"):
        _ = llm.logits
    llm.load_state(state)
    with pytest.raises(ContextError, match="eval a token first"):
        _ = llm.logits
    llm.close()
    with pytest.raises(ClosedError):
        _ = llm.logits


def test_embeddings_are_not_copied(smollm2_core: Llama) -> None:
    tokens = smollm2_core.tokenize("A cat sat on the mat.")
    (found,) = core.embed(smollm2_core._open_model(), [tokens], "none", 2)
    assert found.base is not None
    assert found.flags.writeable
    before = found.copy()
    pooled = smollm2_core.embed("A cat sat on the mat.")
    assert isinstance(pooled, np.ndarray)
    assert not pooled.flags.owndata
    core.embed(smollm2_core._open_model(), [tokens[::-1]], "none", 2)
    gc.collect()
    np.testing.assert_array_equal(found, before)
    np.testing.assert_allclose(pooled, found.mean(axis=0), atol=1e-3)
