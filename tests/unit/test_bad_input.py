"""Everything a user can get wrong: a clear Python exception, before anything changes."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import dense
from models.builder import TinyModel
from pytriattn import (
    BudgetError,
    BusyError,
    ClosedError,
    ContextError,
    ContextFullError,
    InvalidTokenError,
    Llama,
    ModelLoadError,
    TriAttentionStats,
    TriAttnError,
    UnsupportedModelError,
)
from pytriattn._native import core
from pytriattn.model_info import tested_architectures as architectures


def test_models_that_are_none(tmp_path: pathlib.Path, smollm2: pathlib.Path) -> None:
    with pytest.raises(ModelLoadError, match="nowhere.gguf' does not exist"):
        Llama(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelLoadError, match="is a folder"):
        Llama(tmp_path)
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="is empty"):
        Llama(tmp_path / "empty.gguf")
    (tmp_path / "text.gguf").write_text("this is no model")
    with pytest.raises(ModelLoadError, match=r"text.gguf' is not a GGUF file \(it starts with b'this'\)"):
        Llama(tmp_path / "text.gguf")
    head = smollm2.read_bytes()[:5_000_000]
    for n in (6, 100, 20_000, 5_000_000):
        (tmp_path / "cut.gguf").write_bytes(head[:n])
        with pytest.raises(ModelLoadError, match="cut.gguf.*llama.cpp"):
            Llama(tmp_path / "cut.gguf")


def test_gguf_files_that_hold_no_language_model(tmp_path: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    smollm2_stats.save(tmp_path / "stats.gguf")
    with pytest.raises(ModelLoadError, match="stats.gguf.*triattention"):
        Llama(tmp_path / "stats.gguf")


def test_prompts(smollm2: pathlib.Path, smollm2_core: Llama) -> None:
    llm = smollm2_core
    llm.generate([1, 2, 3])
    prompts: tuple[Any, ...] = ("", [], np.array([], dtype=np.int64))
    for prompt in prompts:
        with pytest.raises(InvalidTokenError, match="empty"):
            llm(prompt)
    for call in (llm.generate, llm.logprobs, llm):
        with pytest.raises(InvalidTokenError, match="empty"):
            call([])
        for wrong in (-1, 49152, 2**40):
            with pytest.raises(InvalidTokenError, match=f"token {wrong} is not in the vocabulary of 49152"):
                call([1, wrong])
        for odd in ([1.5, 2.0], [[1, 2]], ["a"]):
            with pytest.raises(InvalidTokenError, match="whole numbers"):
                call(odd)
        with pytest.raises(ContextFullError, match="2049 tokens"):
            call([1] * 2049)
    with pytest.raises(InvalidTokenError, match="-3"):
        llm.detokenize([-3])
    assert llm.n_tokens == 3  # nothing of this has touched the context


def test_sampling_values(smollm2_core: Llama) -> None:
    for options in (
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repeat_penalty": 0},
        {"logprobs": -1},
        {"stop": ["x", ""]},
        {"stop": [1]},
        {"top_k": 1.5},
        {"seed": 1.5},
        {"repeat_penalty": 1e300},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            smollm2_core("Hi", **options)
    for call in (smollm2_core, smollm2_core.generate):
        with pytest.raises(TypeError, match="temprature"):
            call([1, 2], temprature=0)


def test_arguments_are_checked_before_anything_is_read(smollm2_core: Llama) -> None:
    smollm2_core.generate([1, 2, 3])
    for options in (
        {"top_k": 1.5},
        {"seed": 1.5},
        {"stop": [1]},
        {"logprobs": 1.5},
        {"max_tokens": 1.5},
        {"temperature": "hot"},
    ):
        with pytest.raises((ValueError, TypeError)):
            smollm2_core("Hello", **options)
    assert smollm2_core.n_tokens == 3


def test_a_model_without_a_tokenizer(tiny: Callable[[str], pathlib.Path]) -> None:
    with Llama(tiny("llama"), n_ctx=64) as llm:
        for call in (lambda: llm.tokenize("abc"), lambda: llm.detokenize([1]), lambda: llm("abc"), lambda: llm([1, 2])):
            with pytest.raises(UnsupportedModelError, match="no tokenizer"):
                call()
        assert len(list(llm.generate([1, 2], max_tokens=3, temperature=0))) == 3


def test_log_probabilities_of_tokens_that_are_none(smollm2_core: Llama) -> None:
    smollm2_core.generate([1, 2, 3])
    for token in (-3, 2**30):
        with pytest.raises(InvalidTokenError, match=str(token)):
            smollm2_core.next_logprobs(token, 1)


def test_nothing_to_sample_from(smollm2_core: Llama) -> None:
    generation = smollm2_core.generate([1, 2, 3])
    smollm2_core._open_context().clear()
    with pytest.raises(ContextError, match="logits"):
        next(generation)


def test_metadata_and_log_lines_need_not_be_utf8(tiny: Callable[[str], pathlib.Path], tmp_path: pathlib.Path) -> None:
    """llama.cpp logs values cut anywhere, also within a character."""
    model = dense.llama()
    model.keys({"odd": "a" * 36 + "é" * 10})
    model.save(tmp_path / "odd.gguf")
    with Llama(tmp_path / "odd.gguf", n_ctx=64) as llm:
        assert llm.metadata["llama.odd"].endswith("é")
    data = tiny("llama").read_bytes()
    (tmp_path / "arch.gguf").write_bytes(
        data.replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00ll\xffma", 1)
    )
    with pytest.raises(ModelLoadError, match="ll.ma"):
        Llama(tmp_path / "arch.gguf")


def test_file_names_need_not_be_utf8(tiny: Callable[[str], pathlib.Path], tmp_path: pathlib.Path) -> None:
    name = tmp_path / os.fsdecode(b"m\xff.gguf")
    name.write_bytes(tiny("llama").read_bytes())
    with Llama(name, n_ctx=64) as llm:
        assert llm.n_vocab() == 256


@pytest.mark.slow
def test_a_hybrid_without_recurrent_layers(tmp_path: pathlib.Path) -> None:
    """llama.cpp ends the process where it makes a context for such a file."""
    model = TinyModel("lfm2", n_layer=2, head_dim=32, n_embd=128, n_head_kv=2)
    model.keys({"shortconv.l_cache": 3})
    model.ends(norm="token_embd_norm")
    for layer in range(model.n_layer):
        model.norms(layer, "attn_norm", "ffn_norm")
        model.ffn(layer)
        model.attention(layer, qk_norm=True)
    model.save(tmp_path / "attention.gguf")
    with pytest.raises(UnsupportedModelError, match="has none, which llama.cpp cannot run"):
        Llama(tmp_path / "attention.gguf", n_ctx=64)


@pytest.mark.parametrize("n_threads", ["idle", 1.5, -1])
def test_threads_that_are_no_number(tiny: Callable[[str], pathlib.Path], n_threads: Any) -> None:
    with pytest.raises(ContextError, match="n_threads is"):
        Llama(tiny("llama"), n_threads=n_threads)


def test_a_second_thread_does_not_end_the_first_ones_generation(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=2048) as llm:
        generation = llm.generate([1, 2, 3], ignore_eos=True)
        thread = threading.Thread(target=lambda: llm._open_context().logprobs([1] * 1500))
        thread.start()
        time.sleep(0.3)
        for call in (lambda: llm.generate([1]), lambda: llm.logprobs([1]), llm.reset):
            with pytest.raises(BusyError, match="in use"):
                call()
        assert generation._call == llm.call_number  # what was refused has not counted
        thread.join()


def test_a_protected_prompt_that_does_not_fit(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=128, protect_prompt=True) as llm:
        llm.generate([1] * 95)
        with pytest.raises(BudgetError, match="protected prompt of 96 tokens.*budget of 128"):
            llm.generate([1] * 96)
        assert llm.n_tokens == 95


def test_heads_and_layers_that_are_not_there(smollm2_core: Llama) -> None:
    with pytest.raises(ContextError, match="layer 30"):
        smollm2_core.kept_positions(30, 0)
    with pytest.raises(ContextError, match="3 KV heads, not a head 3"):
        smollm2_core.kept_positions(0, 3)


def test_a_closed_llama(smollm2: pathlib.Path) -> None:
    llm = Llama(smollm2, n_ctx=128)
    generation = llm.generate([1, 2, 3], ignore_eos=True)
    next(generation)
    llm.close()
    llm.close()
    for call in (
        lambda: next(generation),
        lambda: llm("Hi"),
        lambda: llm.tokenize("Hi"),
        lambda: llm.logprobs([1]),
        llm.kv_stats,
        llm.reset,
        lambda: llm.n_tokens,
        lambda: llm.kept_positions(0, 0),
        llm.n_vocab,
    ):
        with pytest.raises(ClosedError, match="closed"):
            call()
    assert llm.metadata["general.architecture"] == "llama"  # plain facts stay


def test_a_later_call_ends_an_earlier_generation(smollm2_core: Llama) -> None:
    first = smollm2_core.generate([1, 2, 3], ignore_eos=True)
    next(first)
    second = smollm2_core.generate([4, 5, 6], ignore_eos=True)
    with pytest.raises(BusyError, match="another call"):
        next(first)
    assert next(second) >= 0


@pytest.mark.slow
def test_two_threads_on_one_llama(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=2048) as llm:
        started, failed = threading.Event(), []

        def work() -> None:
            started.set()
            try:
                llm.logprobs([1] * 2000)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        time.sleep(0.2)
        calls: list[Callable[[], object]] = [
            lambda: llm.logprobs([1, 2]),
            lambda: llm.generate([1, 2]),
            llm.close,
            llm.kv_stats,
        ]
        for call in calls:
            with pytest.raises(BusyError, match="in use by another thread"):
                call()
        thread.join()
        assert not failed
        assert len(llm.logprobs([1, 2, 3])) == 2  # and it still works


def test_models_that_cannot_be_evicted_from(tiny: Callable[[str], pathlib.Path]) -> None:
    # no tokenizer: the bundled text cannot be read
    with pytest.raises(TriAttnError, match="no tokenizer"):
        Llama(tiny("llama"), budget=128)


def test_an_architecture_that_has_not_been_tested(
    tiny: Callable[[str], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "passed_architectures", lambda: frozenset({"qwen3"}))
    with pytest.raises(UnsupportedModelError, match=r"not been tested.*'llama'.*allow_untested=True"):
        Llama(tiny("llama"), budget=128, mode="recent")
    for options in ({}, {"budget": 128, "mode": "recent", "allow_untested": True}):
        with Llama(tiny("llama"), n_ctx=512, **options) as llm:
            assert len(llm.logprobs([1, 2, 3])) == 2


def test_a_context_that_cannot_be_made_says_why(tmp_path: pathlib.Path) -> None:
    model = TinyModel("qwen3", n_layer=1, head_dim=48)  # does not divide into blocks of 32
    model.ends()
    model.norms(0, "attn_norm", "ffn_norm")
    model.attention(0, qk_norm=True)
    model.ffn(0)
    model.save(tmp_path / "48.gguf")
    with pytest.raises(
        ContextError, match="type_k='q8_0' does not fit heads of 48 in layer 0: q8_0 stores .*; use f16"
    ):
        Llama(tmp_path / "48.gguf", type_k="q8_0", type_v="q8_0", n_ctx=256)
    # what llama.cpp itself says
    params = core.DecoderParams(n_ctx=256, n_threads=1, type_k="q8_0", type_v="q8_0")
    with pytest.raises(ContextError, match="llama.cpp"):
        core.Context(core.Model(str(tmp_path / "48.gguf")), params, None)
