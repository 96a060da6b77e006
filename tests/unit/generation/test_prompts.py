"""What a model adds to a prompt: tokens in front of it are not shown, and none is added at its end."""

from __future__ import annotations

import pathlib
import struct

import pytest

from pytriattn import Llama


def test_places_of_an_echoed_prompt(gemma3: pathlib.Path) -> None:
    with Llama(gemma3, n_ctx=256) as llm:
        choice = llm("Hi there", max_tokens=2, temperature=0, echo=True, logprobs=0)["choices"][0]
    names, places = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    assert names[0] == "<bos>"
    assert places[:3] == [0, 0, 2]
    assert choice["text"].startswith("Hi there")
    for name, place in zip(names[1:], places[1:], strict=True):
        assert choice["text"][place:].startswith(name)


@pytest.fixture(scope="module")
def adds_eos(smollm2: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """SmolLM2 with ``add_eos_token`` in its metadata, and a padding key so that tensors stay aligned."""
    data = smollm2.read_bytes()
    key, padding = b"tokenizer.ggml.add_eos_token", b"x.pad"
    added = struct.pack("<Q", len(key)) + key + struct.pack("<I?", 7, True)
    head = struct.pack("<Q", len(padding)) + padding + struct.pack("<I", 8)
    n_fill = -(len(added) + len(head) + 8) % 32
    added += head + struct.pack("<Q", n_fill) + b"p" * n_fill
    n_keys = struct.unpack("<Q", data[16:24])[0] + 2
    path = tmp_path_factory.mktemp("eos") / "eos.gguf"
    path.write_bytes(data[:16] + struct.pack("<Q", n_keys) + added + data[24:])
    return path


def test_no_end_of_text_after_a_prompt(adds_eos: pathlib.Path) -> None:
    with Llama(adds_eos, n_ctx=256) as llm:
        assert llm.tokenize("France")[-1] == llm.token_eos()
        assert llm.tokenize_prompt("France")[-1] != llm.token_eos()
        assert "Paris" in llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
        assert llm.tokens[-1] != llm.token_eos()
        # what the user writes stays
        assert llm.tokenize_prompt("France<|im_end|>")[-1] == llm.token_eos()
