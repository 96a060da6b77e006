"""Drafting: guessed tokens are computed ahead, and nothing else changes."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from copy_model import write_copy
from models.registry import make_tiny_model
from pytriattn import (
    ContextError,
    InvalidTokenError,
    Llama,
    LlamaDraftModel,
    LlamaModelDrafting,
    LlamaPromptLookupDecoding,
    ModelLoadError,
    RequestCancelledError,
    UnsupportedModelError,
)

BUDGET: dict[str, Any] = {"budget": 96, "window": 32, "interval": 32}
N = 120


class Oracle(LlamaDraftModel):
    """Knows the text, and is wrong at every `wrong`-th guess at most."""

    def __init__(self, text: list[int], wrong: int = 7, num_pred_tokens: int = 5) -> None:
        self.text, self.wrong, self.num_pred_tokens, self.n_calls = text, wrong, num_pred_tokens, 0

    def __call__(self, input_ids: npt.NDArray[np.int32], /, **kwargs: Any) -> npt.NDArray[np.int32]:
        self.n_calls += 1
        guess = np.array(self.text[len(input_ids) :], dtype=np.int32)
        guess[self.wrong :: self.wrong] ^= 1
        return np.roll(guess, -(self.n_calls % self.wrong))[:5] if self.n_calls % 3 == 0 else guess


Opens = Callable[..., Llama]


def exact_in_batches(arch: str, folder: pathlib.Path) -> pathlib.Path:
    """Return a tiny model of a type whose products ggml adds up in one order, for one token and for many at once: then
    drafts change no bit. With others, tokens that are all but equally likely may change places.
    """
    model = make_tiny_model(arch, folder, of_bytes=True)
    copy = model.with_suffix(".q4_1.gguf")
    if not copy.exists():
        write_copy(model, copy, gguf.GGMLQuantizationType.Q4_1)
    return copy


@pytest.fixture
def opens(tiny_folder: pathlib.Path) -> Opens:
    def open_tiny(arch: str = "llama", **settings: Any) -> Llama:
        defaults: dict[str, Any] = {"n_ctx": 1024, "n_threads": 1, "seed": 1}
        return Llama(exact_in_batches(arch, tiny_folder), **{**defaults, **settings})

    return open_tiny


def run(llm: Llama, prompt: npt.NDArray[np.int32], n: int = N) -> tuple[list[int], list[Any], list[float]]:
    """Return greedy tokens, the evictions, and the logits' maxima that they were drawn from."""
    evictions: list[Any] = []
    llm.on_evict(lambda e: evictions.append((e.position, llm.kv_stats()["tokens_decoded"], e.evicted)))
    tokens, maxima = [], []
    for token in llm.generate(prompt, n, temperature=0, ignore_eos=True):
        tokens.append(token)
        maxima.append(float(llm.logits.max()))
    return tokens, evictions, maxima


@pytest.mark.parametrize("settings", [{}, BUDGET, {**BUDGET, "reread": True}, {**BUDGET, "mode": "per_layer_head"}])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen35"])
def test_text_evictions_and_logits_are_those_without(
    arch: str, settings: dict[str, Any], opens: Opens, random_tokens: npt.NDArray[np.int32]
) -> None:
    prompt = random_tokens[:200]
    with opens(arch, **settings) as llm:
        plain, evictions, maxima = run(llm, prompt)
    oracle = Oracle([*prompt.tolist(), *plain])
    with opens(arch, draft_model=oracle, **settings) as llm:
        drafted, same, close = run(llm, prompt)
        stats = llm.kv_stats()
    assert drafted == plain
    assert [e[:2] for e in same] == [e[:2] for e in evictions]
    for mine, theirs in zip(same, evictions, strict=True):
        for layer in mine[2]:
            assert all(map(np.array_equal, mine[2][layer], theirs[2][layer]))
    np.testing.assert_allclose(close, maxima, rtol=2e-3)
    assert len(evictions) > 4 or not settings
    assert 0 < stats["tokens_accepted"] < stats["tokens_drafted"]
    assert oracle.n_calls < N


@pytest.mark.parametrize("settings", [{}, BUDGET])
def test_whoever_leaves_the_loop_finds_the_text_as_it_was_handed_out(
    settings: dict[str, Any], opens: Opens, random_tokens: npt.NDArray[np.int32]
) -> None:
    prompt, more = random_tokens[:150], random_tokens[200:240]

    def leave(llm: Llama) -> list[Any]:
        found: list[Any] = []
        for n in (3, 40, 41, 44):
            tokens = list(itertools.islice(llm.generate(prompt, temperature=0, ignore_eos=True), n))
            found += [tokens, llm.tokens, llm.n_tokens, llm.kv_stats()["cells_used"], llm.kept_positions(0, 0).tolist()]
            again = list(llm.generate(None, 5, temperature=0, ignore_eos=True))
            llm.eval(more)
            found += [again, llm.tokens, int(llm.logits.argmax()), llm.kept_positions(1, 0).tolist()]
        return found

    with opens(**settings) as llm:
        plain = leave(llm)
        text = [*prompt.tolist(), *llm.generate(prompt, 80, temperature=0, ignore_eos=True)]
    with opens(draft_model=Oracle(text, wrong=50, num_pred_tokens=8), **settings) as llm:
        assert leave(llm) == plain
        assert llm.kv_stats()["tokens_accepted"] > 0


def test_sampling_stops_and_logprobs_are_those_without(opens: Opens, random_tokens: npt.NDArray[np.int32]) -> None:
    prompt = random_tokens[:100].tolist()

    def calls(llm: Llama) -> list[Any]:
        found: list[Any] = []
        for settings in ({"temperature": 0.6, "seed": 3}, {"temperature": 0.0, "repeat_penalty": 1.3}):
            result: Any = llm(prompt, 40, logprobs=3, ignore_eos=True, **settings)
            found.append([result["choices"][0]["text"], result["choices"][0]["logprobs"]["tokens"]])
            values = result["choices"][0]["logprobs"]["token_logprobs"]
            found.append([round(value, 3) for value in values])
        whole = found[2][0]
        stopped: Any = llm(prompt, 40, stop=[whole[20:23]], temperature=0, repeat_penalty=1.3, ignore_eos=True)
        pieces: Any = llm(prompt, 40, stream=True, temperature=0, repeat_penalty=1.3, ignore_eos=True)
        return [*found, stopped["choices"][0], "".join(piece["choices"][0]["text"] for piece in pieces)]

    with opens() as llm:
        plain = calls(llm)
        text = [*prompt, *llm.generate(prompt, 60, temperature=0.6, seed=3, ignore_eos=True)]
    with opens(draft_model=Oracle(text)) as llm:
        assert calls(llm) == plain


@pytest.mark.parametrize("settings", [{}, BUDGET])
def test_a_small_model_and_the_text_itself_draft(
    settings: dict[str, Any], opens: Opens, tiny_folder: pathlib.Path, random_tokens: npt.NDArray[np.int32]
) -> None:
    """A small model that is the model itself is right as long as nothing has been evicted."""
    small = exact_in_batches("llama", tiny_folder)
    prompt = random_tokens[:300]
    with opens(**settings) as llm:
        plain, evictions, _ = run(llm, prompt)
    for draft_model in (small, LlamaModelDrafting(small, 6, n_ctx=256), LlamaPromptLookupDecoding(2, 4)):
        with opens(draft_model=draft_model, **settings) as llm:
            tokens, same, _ = run(llm, prompt)
            assert tokens == plain
            assert [e[:2] for e in same] == [e[:2] for e in evictions]
            stats = llm.kv_stats()
            # another text, and back
            assert run(llm, random_tokens[400:500], 20)[0] != plain[:20]
            assert run(llm, prompt)[0] == plain
        if draft_model == small and not settings:
            assert stats["tokens_accepted"] > 0.9 * stats["tokens_drafted"] > 80
    rule = LlamaPromptLookupDecoding(3, 4)
    assert rule(np.array([9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3], dtype=np.int32)).tolist() == [4, 5, 6, 7]


def test_what_cannot_be_used_is_refused(opens: Opens, smollm2: pathlib.Path, tiny_folder: pathlib.Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nowhere\.gguf"):
        opens(draft_model="nowhere.gguf")
    with pytest.raises(UnsupportedModelError, match="same vocabulary"):
        opens(draft_model=smollm2)
    with pytest.raises(UnsupportedModelError, match="recurrent states"):
        opens(draft_model=make_tiny_model("qwen35", tiny_folder, of_bytes=True))
    with pytest.raises(UnsupportedModelError, match="without draft_model"):
        opens("falcon-h1", draft_model=LlamaPromptLookupDecoding())
    with pytest.raises(ContextError, match="draft_model is 7"):
        opens(draft_model=7)
    with pytest.raises(ContextError, match="num_pred_tokens is 0"):
        LlamaModelDrafting(smollm2, 0)
    with pytest.raises(ContextError, match="at least 4 times"):
        LlamaModelDrafting(smollm2, n_ctx=8)
    with pytest.raises(ContextError, match="max_ngram_size is 0"):
        LlamaPromptLookupDecoding(0)


def test_a_rule_that_fails_does_no_harm(opens: Opens, random_tokens: npt.NDArray[np.int32]) -> None:
    class Wrong(LlamaDraftModel):
        def __call__(self, input_ids: npt.NDArray[np.int32], /, **kwargs: Any) -> npt.NDArray[np.int32]:
            if len(input_ids) > 60:
                raise KeyError("no idea")
            return np.array([99999], dtype=np.int32)

    with opens(draft_model=Wrong()) as llm:
        with pytest.raises(InvalidTokenError, match="99999"):
            list(llm.generate(random_tokens[:50], 5, temperature=0, ignore_eos=True))
        with pytest.raises(KeyError, match="no idea"):
            list(llm.generate(random_tokens[:60], 5, temperature=0, ignore_eos=True))
        assert len(list(llm.generate(random_tokens[:60], 1, temperature=0, ignore_eos=True))) == 1


def test_a_request_is_cancelled_where_it_drafts(opens: Opens, random_tokens: npt.NDArray[np.int32]) -> None:
    class Cancels(LlamaDraftModel):
        llm: Llama

        def __call__(self, input_ids: npt.NDArray[np.int32], /, **kwargs: Any) -> npt.NDArray[np.int32]:
            if len(input_ids) == 55:
                self.llm.cancel()
            return np.array([1, 2, 3], dtype=np.int32)

    rule = Cancels()
    with opens(draft_model=rule) as rule.llm:
        with pytest.raises(RequestCancelledError):
            list(rule.llm.generate(random_tokens[:50], 20, temperature=0, ignore_eos=True))
        assert rule.llm.tokens == []
        assert len(list(rule.llm.generate(random_tokens[:60], 20, temperature=0, ignore_eos=True))) == 20


@pytest.mark.slow
def test_a_real_model_says_the_same(smollm2: pathlib.Path, sidecar: pathlib.Path, long_text: str) -> None:
    """Greedy text with a draft model, and with drafts from the text itself, is that without; also past evictions."""
    texts = []
    for draft_model in (None, smollm2, LlamaPromptLookupDecoding(3, 8)):
        settings: dict[str, Any] = {"budget": 256, "triattn_stats": sidecar, "n_ctx": 4096, "n_threads": 1}
        with Llama(smollm2, draft_model=draft_model, **settings) as llm:
            result: Any = llm(long_text[:3500], 100, temperature=0, ignore_eos=True)
            texts.append(result["choices"][0]["text"])
            stats = llm.kv_stats()
            assert stats["evictions"] > 2
            assert draft_model is None or stats["tokens_accepted"] > 10
    assert texts[1:] == texts[:1] * 2
