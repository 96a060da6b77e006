"""`Llama.on_evict` tells exactly what has gone."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from pytriattn import Eviction, Llama
from support.tiny_context import Tiny, Tokens


@pytest.mark.parametrize("mode", ["random", "recent"])
def test_what_is_kept_and_what_was_evicted_make_up_the_text(tiny: Tiny, random_tokens: Tokens, mode: str) -> None:
    with Llama(tiny("gemma3"), budget=128, mode=mode, n_ctx=4096, seed=2) as llm:
        found: list[Eviction] = []
        llm.on_evict(found.append)
        for _ in llm.generate(random_tokens[:300], max_tokens=400, ignore_eos=True):
            pass
        assert len(found) == llm.kv_stats()["evictions"] > 3
        assert [e.position for e in found] == sorted(e.position for e in found)
        for eviction in found:
            assert (eviction.sequence, eviction.n_after) == (0, 128)
            assert sorted(eviction.evicted) == llm.attention_layers
        for layer in llm.attention_layers:
            for head in range(len(found[0].evicted[layer])):
                gone = np.concatenate([e.evicted[layer][head] for e in found])
                assert [len(e.evicted[layer][head]) for e in found] == [e.n_before - e.n_after for e in found]
                everything = np.sort(np.concatenate([gone, llm.kept_positions(layer, head)]))
                np.testing.assert_array_equal(everything, np.arange(llm.n_tokens))


@pytest.mark.slow
def test_heads_lose_different_keys(smollm2: pathlib.Path, long_text: str) -> None:
    with Llama(smollm2, budget=256, n_ctx=4096) as llm:
        found: list[Eviction] = []
        llm.on_evict(found.append)
        llm.logprobs(llm.tokenize(long_text)[:700])
        assert found
        sets = {tuple(head.tolist()) for heads in found[0].evicted.values() for head in heads}
        assert len(sets) > 80  # of 90 heads
        llm.on_evict(None)
        n = len(found)
        llm.logprobs(llm.tokenize(long_text)[:700])
        assert len(found) == n


def test_an_exception_in_the_callback_comes_out(tiny: Tiny, random_tokens: Tokens) -> None:
    def fail(eviction: Eviction) -> None:
        raise RuntimeError(f"at {eviction.position}")

    with Llama(tiny("llama"), budget=128, mode="recent", n_ctx=4096) as llm:
        llm.on_evict(fail)
        with pytest.raises(RuntimeError, match="at 2"):
            llm.generate(random_tokens[:400])
        llm.on_evict(None)
        assert len(list(llm.generate(random_tokens[:400], max_tokens=3, ignore_eos=True))) == 3
