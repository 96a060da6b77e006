"""What `tokens` says is what the cache holds, whatever comes in between."""

from __future__ import annotations

import os
import pathlib
import stat

import numpy as np
import pytest

from pytriattn import Llama

SMALL = {"n_ctx": 2048, "budget": 128, "interval": 32, "window": 16, "mode": "recent", "n_threads": 2}


def test_eval_goes_on_after_logprobs(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=512) as llm:
        measured = llm.tokenize("The capital of France is Paris. The capital of Italy is Rome.")
        first, rest = llm.tokenize("Water boils at"), llm.tokenize(" a temperature of")
        llm.logprobs(measured)
        assert llm.tokens == measured
        llm.eval(rest)
        assert llm.tokens == measured + rest
        assert llm.n_tokens == len(measured + rest)
        answer = llm(first + rest, max_tokens=8, temperature=0)["choices"][0]["text"]
        llm.reset()
        assert llm(first + rest, max_tokens=8, temperature=0)["choices"][0]["text"] == answer


@pytest.mark.slow
def test_an_exception_of_on_evict_leaves_the_books_in_order(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, **SMALL) as llm:
        calls = 0

        def refuse_first(_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("mine")

        llm.on_evict(refuse_first)
        with pytest.raises(RuntimeError, match="mine"):
            llm.eval(list(range(100, 300)))
        assert llm.tokens == list(range(100, 300))
        assert llm.n_tokens == 200

        llm.reset()
        calls, out = 0, []
        words = llm.generate(list(range(100, 200)), max_tokens=80, temperature=0, ignore_eos=True)
        with pytest.raises(RuntimeError, match="mine"):
            for word in words:
                out.append(word)
        assert words.finish_reason == "error"
        assert list(words) == []
        assert llm.tokens[100:] == out  # what was handed out is what was read
        assert llm.n_tokens == len(llm.tokens)


@pytest.mark.slow
def test_prompts_of_a_batch_are_told_of_at_once(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_seq_max=2, **SMALL) as llm:
        seen = []
        llm.on_evict(lambda eviction: seen.append((eviction.sequence, eviction.position)))
        llm.generate_batch([list(range(100, 400))] * 2, max_tokens=1)
        assert len(seen) == llm.kv_stats()["evictions"] > 0


def test_numbers_of_numpy(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, **{**SMALL, "budget": np.int64(128), "n_ctx": np.int32(512)}) as llm:
        llm.eval([1, 2, 3])
        state = llm.save_state()
    with Llama(smollm2, **{**SMALL, "n_ctx": 512}) as llm:
        llm.load_state(state)
        assert llm.tokens == [1, 2, 3]


def test_a_state_is_written_through_links_and_into_pipes(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    real, link, pipe = tmp_path / "real.state", tmp_path / "link.state", tmp_path / "pipe"
    real.write_bytes(b"")
    real.chmod(0o640)
    link.symlink_to("real.state")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Llama(smollm2, n_ctx=256) as llm:
        llm.eval([1])
        llm.save_state(link)
        assert link.is_symlink()
        assert real.read_bytes() == llm.save_state()
        assert stat.S_IMODE(real.stat().st_mode) == 0o640
        llm.save_state(pipe)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 1 << 20) == llm.save_state()
    os.close(reader)
