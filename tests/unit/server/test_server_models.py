"""Conversations that go on from an evicted cache, in models with every kind of cache."""

from __future__ import annotations

import pathlib

import pytest

from models.registry import make_tiny_model
from pytriattn.server import Server
from support.server_client import ask

pytestmark = pytest.mark.slow

N_READ = 900


@pytest.mark.parametrize("arch", ["llama", "gemma3", "falcon-h1", "qwen35", "lfm2"])
def test_what_has_been_read_is_not_read_again(arch: str, tiny_folder: pathlib.Path, long_text: str) -> None:
    flags = ["--slots", "--cache-ram", "0"]
    settings: dict = {"budget": 128, "window": 32, "interval": 32, "parallel": 2, "n_ctx": 2048, "n_threads": 1}
    prompt = [*long_text.encode()[:N_READ]]
    with Server(make_tiny_model(arch, tiny_folder, of_bytes=True), arguments=flags, **settings) as server:

        def complete(tokens: list[int], slot: int = 0) -> dict:
            body = {"prompt": tokens, "n_predict": 20, "temperature": 0, "id_slot": slot, "return_tokens": True}
            answer: dict = ask(f"{server.url}/completion", {**body, "ignore_eos": True})
            return answer

        first = complete(prompt)
        assert ask(f"{server.url}/slots")[0]["triattention"]["evictions"] > 4
        grown = complete([*prompt, *first["tokens"], *b" and more"])
        assert grown["timings"]["cache_n"] == N_READ + 19  # all but the token that was drawn last
        # an answer that is told differently afterwards, as by templates that leave out what a model has thought
        retold = complete([*prompt, *first["tokens"][:5], *b" or else"])
        assert retold["timings"]["cache_n"] > N_READ // 2
        # what comes after is the same as in a slot that has never known another text
        edited = complete([*b"XX", *prompt])
        assert edited["timings"]["cache_n"] == 0
        assert edited["tokens"] == complete([*b"XX", *prompt], slot=1)["tokens"]


def test_a_model_is_calibrated_at_its_first_start_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTRIATTN_CACHE_DIR", str(tmp_path / "cache"))
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    for is_first in (True, False):
        with Server(model, budget=128, window=32, n_ctx=1024, n_threads=1) as server:
            assert ("calibrating" in server.log) == is_first


def test_drafting_changes_nothing(smollm2: pathlib.Path, sidecar: pathlib.Path, long_text: str) -> None:
    """Greedy text with a draft model, and with drafts from the text itself, is that without; also past evictions."""
    body = {"prompt": long_text[:5000], "n_predict": 150, "temperature": 0, "ignore_eos": True}
    texts = []
    for flags in ([], ["--model-draft", str(smollm2), "--spec-type", "draft-simple"], ["--spec-type", "ngram-simple"]):
        settings: dict = {"budget": 256, "triattn_stats": sidecar, "n_ctx": 4096, "n_threads": 1}
        with Server(smollm2, **settings, arguments=[*flags, "--slots"]) as server:
            answer = ask(f"{server.url}/completion", body)
            texts.append(answer["content"])
            assert ask(f"{server.url}/slots")[0]["triattention"]["evictions"] > 4
            if flags:
                assert answer["timings"]["draft_n"] > 0
    assert texts[1] == texts[0]
    assert texts[2] == texts[0]
