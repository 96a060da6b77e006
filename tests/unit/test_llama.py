"""The `Llama` class on SmolLM2, as a user meets it."""

from __future__ import annotations

import logging
import pathlib

import numpy as np
import pytest

from pytriattn import Llama, TriAttentionStats

PROMPT = "The capital of France is"


def greedy(llm: Llama, **options: object) -> str:
    return llm(PROMPT, max_tokens=12, temperature=0, **options)["choices"][0]["text"]  # type: ignore[index]


def test_a_completion_has_openais_form(smollm2_core: Llama) -> None:
    result = smollm2_core(PROMPT, max_tokens=12, temperature=0)
    assert result["object"] == "text_completion"
    assert result["id"].startswith("cmpl-")
    (choice,) = result["choices"]
    assert "Paris" in choice["text"]
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert result["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}


def test_streaming_gives_the_same_text(smollm2_core: Llama) -> None:
    whole = smollm2_core("Once upon a time", max_tokens=40, temperature=0.9, seed=3)["choices"][0]
    chunks = list(smollm2_core("Once upon a time", max_tokens=40, temperature=0.9, seed=3, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_stop_strings_end_the_text_before_them(smollm2_core: Llama) -> None:
    free = greedy(smollm2_core)
    stop = free[5:9]
    for stops in (stop, [stop], ["never", stop]):
        result = smollm2_core(PROMPT, max_tokens=12, temperature=0, stop=stops)["choices"][0]
        assert result["text"] == free[: free.index(stop)]
        assert result["finish_reason"] == "stop"
    streamed = "".join(
        c["choices"][0]["text"] for c in smollm2_core(PROMPT, max_tokens=12, temperature=0, stop=stop, stream=True)
    )
    assert streamed == free[: free.index(stop)]


def test_a_stop_string_that_only_begins_is_not_lost(smollm2_core: Llama) -> None:
    free = greedy(smollm2_core)
    assert greedy(smollm2_core, stop=free[-1] + "#never#") == free


def test_echo_and_logprobs(smollm2_core: Llama) -> None:
    choice = smollm2_core(PROMPT, max_tokens=6, temperature=0, echo=True, logprobs=3)["choices"][0]
    details = choice["logprobs"]
    assert choice["text"].startswith(PROMPT)
    assert "".join(details["tokens"]) == choice["text"]
    assert [
        choice["text"][o : o + len(t)] for o, t in zip(details["text_offset"], details["tokens"], strict=True)
    ] == details["tokens"]
    assert details["token_logprobs"][0] is None
    tokens = smollm2_core.tokenize(PROMPT)
    expected = smollm2_core.logprobs(tokens)
    np.testing.assert_allclose(details["token_logprobs"][1 : len(tokens)], expected, atol=1e-3)
    for value, top in zip(
        details["token_logprobs"][len(tokens) :], details["top_logprobs"][len(tokens) :], strict=True
    ):
        assert len(top) == 3
        assert value == pytest.approx(max(top.values()))  # greedy
    without = smollm2_core(PROMPT, max_tokens=6, temperature=0, logprobs=0)["choices"][0]
    assert without["logprobs"]["top_logprobs"] == [{}] * 6


def test_logprobs_and_stop_strings(smollm2_core: Llama) -> None:
    """A token that was held back, because a stop string could have begun in it, keeps its place in the text."""
    free = greedy(smollm2_core)
    word = free.split()[3]
    for stops in ([free[6:9] + "#"], [word[1:] + "#never", free[-4:]]):
        choice = smollm2_core(PROMPT, max_tokens=12, temperature=0, stop=stops, logprobs=1)["choices"][0]
        details = choice["logprobs"]
        for offset, token in zip(details["text_offset"], details["tokens"], strict=True):
            assert offset < len(choice["text"])
            assert choice["text"][offset:].startswith(token) or token.startswith(choice["text"][offset:])


def test_echo_gives_the_prompt_as_it_was(smollm2_core: Llama) -> None:
    chat = "<|im_start|>user\nhi<|im_end|>\n"
    assert smollm2_core(chat, max_tokens=1, echo=True)["choices"][0]["text"].startswith(chat)
    choice = smollm2_core(smollm2_core.tokenize(chat, special=True), max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert choice["text"] == chat
    assert "".join(choice["logprobs"]["tokens"]) == chat


def test_characters_of_several_tokens(smollm2_core: Llama) -> None:
    """Streamed pieces are whole characters, and fragments share the place of their character."""
    text = "🙂🙃🐘🦥東京"
    tokens = smollm2_core.tokenize(text)
    assert len(tokens) > len(text)
    choice = smollm2_core(tokens, max_tokens=0, echo=True, logprobs=5)["choices"][0]
    assert choice["text"] == text
    assert choice["logprobs"]["text_offset"] == sorted(choice["logprobs"]["text_offset"])
    assert max(choice["logprobs"]["text_offset"]) < len(text)
    chunks = [c["choices"][0]["text"] for c in smollm2_core(text, max_tokens=40, temperature=1.2, seed=4, stream=True)]
    assert not any("\ufffd" in chunk for chunk in chunks[:-1]) or "".join(chunks).count("\ufffd") < 3


def test_penalties_may_look_everywhere_back(smollm2_core: Llama) -> None:
    tokens = smollm2_core.tokenize("red red red red red red red red red red red red")

    def next_token(**options: float) -> list[int]:
        return list(smollm2_core.generate(tokens, max_tokens=1, temperature=0, **options))

    assert (
        next_token(repeat_penalty=3.0, penalty_last_n=-1)
        == next_token(repeat_penalty=3.0, penalty_last_n=2048)
        != next_token()
    )


def test_tokens_go_in_and_out(smollm2_core: Llama) -> None:
    for text in ("Hello, world!", "naïve café — 東京 🙂", "  spaces\n\nand\tlines  "):
        assert smollm2_core.detokenize(smollm2_core.tokenize(text)) == text
        assert smollm2_core.tokenize(text.encode()) == smollm2_core.tokenize(text)
    assert len(smollm2_core.tokenize("<|im_end|>", special=True)) == 1 < len(smollm2_core.tokenize("<|im_end|>"))
    end = smollm2_core.tokenize("<|im_end|>", special=True)
    assert smollm2_core.detokenize(end) == ""
    assert smollm2_core.detokenize(end, special=True) == "<|im_end|>"
    by_text = smollm2_core(PROMPT, max_tokens=5, temperature=0)
    by_tokens = smollm2_core(smollm2_core.tokenize(PROMPT), max_tokens=5, temperature=0)
    assert by_text["choices"] == by_tokens["choices"]


def test_generate_reads_the_prompt_before_it_returns(smollm2_core: Llama) -> None:
    tokens = smollm2_core.tokenize(PROMPT)
    generation = smollm2_core.generate(tokens, max_tokens=8, temperature=0)
    assert smollm2_core.n_tokens == len(tokens)
    found = list(generation)
    assert len(found) == 8
    assert generation.finish_reason == "length"
    assert smollm2_core.n_tokens == len(tokens) + 7  # the last token was handed out, not read
    assert smollm2_core.detokenize(found) in smollm2_core(PROMPT, max_tokens=12, temperature=0)["choices"][0]["text"]
    smollm2_core.reset()
    assert smollm2_core.n_tokens == 0
    # numpy arrays do as well
    assert list(smollm2_core.generate(np.array(tokens), max_tokens=8, temperature=0)) == found


@pytest.mark.slow
def test_the_end_of_a_text(smollm2_core: Llama) -> None:
    question = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n"
    chat = question + "Yes.<|im_end|>\n" + question
    choice = smollm2_core(chat, max_tokens=None, temperature=0)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "<|im_end|>" not in choice["text"]
    assert (
        len(
            list(
                smollm2_core.generate(
                    smollm2_core.tokenize(chat, special=True), max_tokens=60, temperature=0, ignore_eos=True
                )
            )
        )
        == 60
    )


def test_seeds(smollm2_core: Llama) -> None:
    def draw(**options: object) -> str:
        return smollm2_core("A", max_tokens=15, temperature=1.5, **options)["choices"][0]["text"]  # type: ignore[index]

    assert draw(seed=1) == draw(seed=1) == draw()  # the fixture was made with seed=1
    assert draw(seed=1) != draw(seed=2)


def test_penalties_see_the_prompt(smollm2_core: Llama) -> None:
    text = "red red red red red red red red red red red red"
    token = smollm2_core.tokenize(" red")[0]
    free = list(smollm2_core.generate(smollm2_core.tokenize(text), max_tokens=1, temperature=0))
    punished = list(smollm2_core.generate(smollm2_core.tokenize(text), max_tokens=1, temperature=0, repeat_penalty=3.0))
    assert free == [token] != punished


def test_generation_ends_at_n_ctx(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=64) as llm:
        generation = llm.generate(llm.tokenize(PROMPT), temperature=0, ignore_eos=True)
        found = list(generation)
        assert generation.finish_reason == "length"
        assert llm.n_tokens == 64
        assert len(found) == 64 - 5 + 1


def test_facts(smollm2_core: Llama) -> None:
    assert smollm2_core.metadata["general.architecture"] == "llama"
    assert smollm2_core.n_ctx() == 2048
    assert smollm2_core.n_vocab() == 49152
    assert smollm2_core.attention_layers == list(range(30))
    assert smollm2_core.budget is None
    assert smollm2_core.token_eos() == smollm2_core.tokenize("<|im_end|>", special=True)[0]


@pytest.mark.slow
def test_long_generation_in_constant_memory(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    """Some 900 tokens with room for 384: what the package is for."""
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=192, interval=64, window=32, seed=0) as llm:
        before = llm.kv_stats()
        tokens = list(llm.generate(llm.tokenize("Once upon a time"), max_tokens=900, temperature=0.8, ignore_eos=True))
        after = llm.kv_stats()
        assert len(tokens) == 900
        assert after["tokens_seen"] == 903
        assert 192 <= after["cells_used"] < 256
        assert after["cells_allocated"] == before["cells_allocated"] == 256
        assert after["kv_bytes"] == before["kv_bytes"] == 256 * 30 * 3 * 64 * 2 * 2
        assert after["evictions"] == 11
        assert after["tokens_evicted"] == 11 * 64
        assert (
            min(after[k] for k in ("scoring_seconds", "selection_seconds", "compaction_seconds", "decoding_seconds"))
            > 0
        )
        kept = [llm.kept_positions(layer, head) for layer in llm.attention_layers for head in range(3)]
        for positions in kept:
            assert positions.dtype == np.int32
            assert len(positions) == after["cells_used"]
            assert (np.diff(positions) > 0).all()
            assert set(range(4)) | set(range(903 - 32, 903)) <= set(positions.tolist())
        assert len({positions.tobytes() for positions in kept}) > 60  # of 90 heads


@pytest.mark.slow
def test_a_long_prompt_is_read_in_bounded_memory(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=256) as llm:
        tokens = llm.tokenize(long_text)[:1500]
        llm.generate(tokens)
        stats = llm.kv_stats()
        assert (stats["tokens_seen"], stats["cells_allocated"]) == (1500, 512)
        assert 256 <= stats["cells_used"] < 384
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=256, prefill="full", n_ctx=2048) as llm:
        llm.generate(tokens)
        stats = llm.kv_stats()
        assert (stats["cells_used"], stats["cells_allocated"], stats["evictions"]) == (256, 2048, 1)


@pytest.mark.slow
def test_a_protected_prompt_stays(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str) -> None:
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=192, interval=32, window=32, protect_prompt=True) as llm:
        tokens = llm.tokenize(long_text)[:100]
        list(llm.generate(tokens, max_tokens=300, temperature=0, ignore_eos=True))
        assert llm.kv_stats()["evictions"] >= 5
        for layer in (0, 15, 29):
            assert set(range(100)) <= set(llm.kept_positions(layer, 1).tolist())


@pytest.mark.slow
def test_a_budget_larger_than_the_text_changes_nothing(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    """Logits equal to the full cache's, bit for bit."""
    with (
        Llama(smollm2, n_ctx=1024) as full,
        Llama(smollm2, triattn_stats=smollm2_stats, budget=700, n_ctx=1024) as small,
    ):
        tokens = full.tokenize(long_text)[:700]
        assert full.logprobs(tokens).tobytes() == small.logprobs(tokens).tobytes()
        for llm in (full, small):
            llm.generate(tokens[:600])
        assert full._open_context().logits().tobytes() == small._open_context().logits().tobytes()
        for token in tokens[600:640]:
            for llm in (full, small):
                llm._open_context().step([0], [token])
            assert full._open_context().logits().tobytes() == small._open_context().logits().tobytes()
        assert small.kv_stats()["evictions"] == 0


@pytest.mark.slow
def test_ten_evictions_repeat_exactly(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str) -> None:
    for mode in ("per_layer_head", "random"):
        runs = []
        for _ in range(2):
            with Llama(
                smollm2, triattn_stats=smollm2_stats, budget=128, interval=32, window=32, mode=mode, seed=7
            ) as llm:
                values = llm.logprobs(llm.tokenize(long_text)[:460])
                assert llm.kv_stats()["evictions"] == 10
                kept = [llm.kept_positions(layer, head).tolist() for layer in (0, 7, 29) for head in range(3)]
                runs.append((values.tobytes(), kept))
        assert runs[0] == runs[1]


@pytest.mark.slow
def test_logprobs_evict_where_decoding_does(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    """Teacher-forced in steps, or token by token: the same keys are kept and the same probabilities come out."""
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=100, interval=40, window=16) as llm:
        tokens = llm.tokenize(long_text)[:330]
        stepwise = llm.logprobs(tokens)
        kept = [llm.kept_positions(layer, 2).tolist() for layer in range(0, 30, 5)]
        assert stepwise.shape == (329,)
        assert stepwise.dtype == np.float32
        llm.reset()
        values = []
        for token, following in zip(tokens[:-1], tokens[1:], strict=True):
            llm._open_context().step([0], [token])
            values.append(llm.next_logprobs(following, 0)[0])
        llm._open_context().step([0], [tokens[-1]])
        # rounding differs between batches of 40 and of 1, which may turn near-ties
        again = [llm.kept_positions(layer, 2).tolist() for layer in range(0, 30, 5)]
        assert all(len(set(a) & set(b)) >= 0.9 * len(a) for a, b in zip(kept, again, strict=True))
        assert abs(np.mean(stepwise) - np.mean(values)) < 0.02
        np.testing.assert_allclose(stepwise[:130], values[:130], atol=0.1)


@pytest.mark.slow
def test_per_head_eviction_remembers_more(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    """A text read twice: better than one set for all heads, and far better than the newest tokens alone."""
    loss = {}
    for mode in ("per_layer_head", "global", "recent"):
        with Llama(smollm2, triattn_stats=smollm2_stats, budget=256, mode=mode, n_ctx=1024) as llm:
            tokens = llm.tokenize(long_text)[:384]
            loss[mode] = -float(np.mean(llm.logprobs(tokens + tokens)[384:]))
    assert loss["per_layer_head"] < loss["global"] < loss["recent"]


@pytest.mark.slow
def test_gemma_evicts_its_global_layers_alone(
    gemma3: pathlib.Path, gemma3_stats: TriAttentionStats, long_text: str
) -> None:
    with Llama(gemma3, triattn_stats=gemma3_stats, budget=192, interval=64, window=32, n_ctx=4096) as llm:
        tokens = llm.tokenize(long_text)[:700]
        assert np.isfinite(llm.logprobs(tokens)).all()
        stats = llm.kv_stats()
        assert llm.attention_layers == [5, 11, 17]
        assert 192 <= stats["cells_used"] < 256
        assert stats["evictions"] >= 7
        assert len(llm.kept_positions(17, 0)) == stats["cells_used"]


@pytest.mark.slow
@pytest.mark.parametrize("types", [("q8_0", "q8_0"), ("q4_0", "q4_0"), ("bf16", "f16")])
def test_cache_types_on_a_real_model(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str, types: tuple[str, str]
) -> None:
    loss, size = {}, {}
    for type_k, type_v in (("f16", "f16"), types):
        with Llama(smollm2, triattn_stats=smollm2_stats, budget=192, type_k=type_k, type_v=type_v, n_ctx=1024) as llm:
            tokens = llm.tokenize(long_text)[:300]
            loss[type_k] = -float(np.mean(llm.logprobs(tokens + tokens)[300:]))
            size[type_k] = llm.kv_stats()["k_bytes"]
    assert loss[types[0]] < loss["f16"] + (0.5 if types[0] == "q4_0" else 0.1)
    assert size[types[0]] <= size["f16"]


@pytest.mark.slow
def test_statistics_are_measured_at_load_if_none_are_given(
    smollm2: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTRIATTN_CACHE_DIR", str(tmp_path / "cache"))
    with Llama(smollm2, budget=128) as llm:
        first = llm.triattn_stats
    (kept,) = (tmp_path / "cache").iterdir()
    assert TriAttentionStats.load(kept).mean_concentration() == first.mean_concentration()
    content, written = kept.read_bytes(), kept.stat().st_mtime_ns
    with Llama(smollm2, budget=128):
        assert kept.stat().st_mtime_ns == written  # read, not measured again
    kept.write_bytes(content[:1000])
    with caplog.at_level(logging.WARNING, logger="pytriattn"), Llama(smollm2, budget=128):
        assert "measuring them again" in caplog.text
    assert kept.read_bytes() == content
    # controls need none
    monkeypatch.setenv("PYTRIATTN_CACHE_DIR", str(tmp_path / "other"))
    with Llama(smollm2, budget=128, mode="recent"):
        assert not (tmp_path / "other").exists()


def test_the_budget_can_be_scaled_on_hybrids(gemma3: pathlib.Path, gemma3_stats: TriAttentionStats) -> None:
    with Llama(gemma3, triattn_stats=gemma3_stats, budget=256, n_ctx=1024, scale_budget_by_attention=True) as llm:
        assert llm.budget == round(1024 * (1 - (1 - 0.25) * 3 / 18))


def test_nothing_is_printed(smollm2: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Llama(smollm2, n_ctx=64) as llm:
        llm(PROMPT, max_tokens=2)
    assert capfd.readouterr() == ("", "")
