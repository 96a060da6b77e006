"""What a prompt has in common with the text in the cache is not read again, and nothing else changes."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from pytriattn import Llama
from support.tiny_context import Tiny, TinyContext, Tokens


def next_logits(llm: Llama, tokens: Tokens) -> np.ndarray:
    llm.read_prompt(llm.check_tokens(tokens))
    logits: np.ndarray = llm._open_context().logits(0)
    return logits


def reused(llm: Llama) -> tuple[int, int]:
    stats = llm.kv_stats()
    return stats["prompt_tokens_reused"], stats["prompt_tokens_read"]


def fresh(path: pathlib.Path, tokens: Tokens, **options: object) -> np.ndarray:
    with Llama(path, **options) as llm:  # type: ignore[arg-type]
        return next_logits(llm, tokens)


@pytest.mark.parametrize("options", [{}, {"budget": 256, "mode": "recent"}], ids=["full", "budget"])
def test_a_common_prefix_is_kept(tiny: Tiny, random_tokens: Tokens, options: dict) -> None:
    path, first = tiny("llama"), random_tokens[:120]
    second = np.concatenate([random_tokens[:90], random_tokens[500:540]])
    with Llama(path, n_ctx=1024, **options) as llm:
        next_logits(llm, first)
        assert reused(llm) == (0, 120)
        decoded = llm.kv_stats()["tokens_decoded"]
        logits = next_logits(llm, second)
        assert reused(llm) == (90, 40)
        assert llm.kv_stats()["tokens_decoded"] == decoded + 40
        assert llm.n_tokens == 130
        # the same text once more: its last token is read for its logits
        np.testing.assert_allclose(next_logits(llm, second), logits, atol=2e-2)
        assert reused(llm) == (129, 1)
        # a beginning of it
        next_logits(llm, second[:50])
        assert reused(llm) == (49, 1)
        assert llm.n_tokens == 50
        # another one
        next_logits(llm, random_tokens[700:750])
        assert reused(llm) == (0, 50)
        assert llm.kv_stats()["prompt_rereads"] == 0
    np.testing.assert_allclose(logits, fresh(path, second, n_ctx=1024, **options), atol=2e-2)


def test_a_conversation_continues_where_it_ended(tiny: Tiny, random_tokens: Tokens) -> None:
    path = tiny("qwen3")
    with Llama(path, n_ctx=2048, seed=1) as llm:
        text = random_tokens[:100].tolist()
        for turn in range(4):
            generation = llm.generate(text, max_tokens=20, ignore_eos=True)
            # all that was read before is there: the prompt of the turn before and its answer, but for the last token
            assert reused(llm)[0] == (0 if turn == 0 else len(text) - 31)
            text += [*generation, *random_tokens[300 + 30 * turn : 330 + 30 * turn].tolist()]
        np.testing.assert_allclose(next_logits(llm, np.array(text)), fresh(path, np.array(text), n_ctx=2048), atol=5e-2)


def test_what_an_eviction_has_touched_is_read_again(tiny: Tiny, random_tokens: Tokens) -> None:
    path = tiny("llama")
    options = {"budget": 128, "mode": "recent", "n_ctx": 4096, "reuse_evicted": False}
    with Llama(path, **options) as llm:
        next_logits(llm, random_tokens[:600])
        assert llm.kv_stats()["evictions"] > 0
        longer = random_tokens[:700]
        logits = next_logits(llm, longer)
        assert reused(llm) == (0, 700)
        assert llm.kv_stats()["prompt_rereads"] == 1
        next_logits(llm, random_tokens[800:850])  # nothing in common: nothing is lost
        assert llm.kv_stats()["prompt_rereads"] == 1
    np.testing.assert_array_equal(logits, fresh(path, longer, **options))


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen3next"])
def test_a_prompt_that_only_adds_may_go_on_after_evictions(tiny: Tiny, random_tokens: Tokens, arch: str) -> None:
    options: dict[str, object] = {"budget": 128, "interval": 32, "mode": "recent", "n_ctx": 4096}
    with Llama(tiny(arch), **options) as llm:  # type: ignore[arg-type]
        next_logits(llm, random_tokens[:600])
        assert llm.kv_stats()["evictions"] > 0
        logits = next_logits(llm, random_tokens[:700])
        assert reused(llm) == (600, 100)
        assert llm.n_tokens == 700
        assert llm.kept_positions(llm.attention_layers[0], 0)[-1] == 699
        assert llm.kv_stats()["cells_used"] < 128 + 32
        # a text that parts from it before the last eviction is read again
        next_logits(llm, np.concatenate([random_tokens[:500], random_tokens[800:850]]))
        assert reused(llm) == (0, 550)
        assert llm.kv_stats()["prompt_rereads"] == 1
    with Llama(tiny(arch), **options) as llm:  # type: ignore[arg-type]
        llm.eval(random_tokens[:600])
        llm.eval(random_tokens[600:700])
        np.testing.assert_array_equal(llm._open_context().logits(0), logits)


def test_a_cache_can_be_cut_back_to_its_last_eviction_and_no_further(tiny: Tiny, random_tokens: Tokens) -> None:
    def read(context: Any, tokens: Tokens) -> None:
        for token in tokens:  # so that evictions take place at the same positions everywhere
            context.step([0], [token])

    path, other = tiny("llama"), random_tokens[900:960]
    cut, straight = TinyContext(path).context, TinyContext(path).context  # budget 96, interval 32
    read(cut, random_tokens[:170])  # evicts at 128 and 160
    assert cut.truncate(0, 165, keep_evicted=True) == 165
    read(straight, random_tokens[:165])
    read(cut, other)
    read(straight, other)
    np.testing.assert_allclose(cut.logits(0), straight.logits(0), atol=2e-2)
    for layer, n_heads in ((0, 2), (2, 2)):
        for head in range(n_heads):
            np.testing.assert_array_equal(cut.kept_positions(0, layer, head), straight.kept_positions(0, layer, head))
    last = int(cut.n_tokens(0)) // 32 * 32
    assert cut.truncate(0, last - 1, keep_evicted=True) == 0
    assert cut.n_tokens(0) == 0
    assert straight.truncate(0, int(straight.n_tokens(0))) == 0  # without leave, any eviction is in the way


def test_heads_say_what_they_hold_after_a_change_of_text(tiny: Tiny, random_tokens: Tokens) -> None:
    """New tokens may land in cells that others had before."""
    with Llama(tiny("llama"), budget=128, mode="recent", n_ctx=4096) as llm:
        next_logits(llm, random_tokens[:200])
        next_logits(llm, np.concatenate([random_tokens[:60], random_tokens[500:590]]))
        assert llm.kept_positions(0, 0).tolist() == list(range(150))
        list(
            llm.generate(np.concatenate([random_tokens[:60], random_tokens[500:560]]), max_tokens=200, ignore_eos=True)
        )
        kept = llm.kept_positions(2, 1)
        assert kept[:4].tolist() == [0, 1, 2, 3]
        assert kept[-1] == llm.n_tokens - 1
        assert len(kept) == llm.kv_stats()["cells_used"]


def test_recurrent_states_cannot_be_rewound(tiny: Tiny, random_tokens: Tokens) -> None:
    path = tiny("lfm2")
    with Llama(path, n_ctx=512) as llm:
        next_logits(llm, random_tokens[:100])
        changed = np.concatenate([random_tokens[:60], random_tokens[500:540]])
        np.testing.assert_array_equal(next_logits(llm, changed), fresh(path, changed, n_ctx=512))
        assert reused(llm) == (0, 100)


def test_a_window_that_has_slid_on_cannot_come_back(tiny: Tiny, random_tokens: Tokens) -> None:
    path = tiny("gemma3")  # its window is 32
    with Llama(path, n_ctx=1024, n_ubatch=64) as llm:
        next_logits(llm, random_tokens[:900])
        early = np.concatenate([random_tokens[:200], random_tokens[950:960]])
        np.testing.assert_allclose(next_logits(llm, early), fresh(path, early, n_ctx=1024, n_ubatch=64), atol=1e-6)
        assert reused(llm) == (0, 210)
        late = np.concatenate([random_tokens[:190], random_tokens[970:980]])
        np.testing.assert_allclose(next_logits(llm, late), fresh(path, late, n_ctx=1024, n_ubatch=64), atol=2e-2)
        assert reused(llm) == (190, 10)


def test_reset_forgets(tiny: Tiny, random_tokens: Tokens) -> None:
    with Llama(tiny("llama"), n_ctx=512) as llm:
        next_logits(llm, random_tokens[:50])
        llm.reset()
        next_logits(llm, random_tokens[:50])
        assert reused(llm) == (0, 50)
        llm.logprobs(random_tokens[:40])
        next_logits(llm, random_tokens[:50])
        assert reused(llm) == (40, 10)  # what has been measured has been read
        llm.reset()
        next_logits(llm, random_tokens[:50])
        assert reused(llm) == (0, 50)
