"""Keys of images whose tokens have a row and a column (M-RoPE), within a budget."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.registry import make_tiny_model
from models.vision import grey_url, make_projector, png_url
from pytriattn import KeyScoreOptions, Llama, UnsupportedModelError
from pytriattn._native import core

TEMPLATE = "{% for message in messages %}{{ message.content }}|{% endfor %}"
WIDTHS = {"qwen2vl": 128, "qwen35": 64, "hunyuan_vl": 64}
START, END = "<|vision_start|>", "<|vision_end|>"  # around an image
GRID = (80, 96)  # pixels: 6 rows of 5 tokens
N_GRID = 30
Opens = Callable[..., Llama]


@pytest.fixture
def opens(tiny_folder: pathlib.Path) -> Opens:
    def open_tiny(arch: str, **settings: Any) -> Llama:
        projector = tiny_folder / f"mmproj-grid-{arch}.gguf"
        if not projector.exists():
            make_projector(projector, WIDTHS[arch], "qwen2vl_merger")
        defaults: dict[str, Any] = {"n_ctx": 4096, "n_threads": 1, "mmproj": projector, "chat_template": TEMPLATE}
        if settings.get("budget"):
            defaults |= {"window": 32, "interval": 32}
        return Llama(make_tiny_model(arch, tiny_folder, of_bytes=True), **{**defaults, **settings})

    return open_tiny


def ask(llm: Llama, before: str, image: str, behind: str, n: int = 12) -> tuple[str, npt.NDArray[np.float32]]:
    """Return the answer to a text around an image, and the logits of its last token."""
    content = [
        {"type": "text", "text": before},
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": behind},
    ]
    found: Any = llm.create_chat_completion(
        [{"role": "user", "content": content}], max_tokens=n, temperature=0, ignore_eos=True
    )
    return found["choices"][0]["message"]["content"], llm.logits.copy()


@pytest.mark.parametrize("arch", ["qwen2vl", "qwen35"])
def test_nothing_changes_as_long_as_nothing_is_evicted(arch: str, opens: Opens, long_text: str) -> None:
    question = long_text[:200], png_url(1, *GRID), long_text[200:300]
    with opens(arch) as llm:
        free = ask(llm, *question)
    with opens(arch, budget=1024) as llm:
        held = ask(llm, *question)
        assert llm.kv_stats()["cells_used"] == 301 + len(START + END) + N_GRID + 11
    assert held[0] == free[0]
    np.testing.assert_array_equal(held[1], free[1])


def test_keys_of_images_are_turned_back_by_row_and_column(opens: Opens, long_text: str) -> None:
    """All tokens of a grey image are the same, and so are their keys in the first layer, but for RoPE."""
    key_score = KeyScoreOptions(use_received=False, question_weight=0.0, standing_weight=0.0, value_power=0.0)
    found = []
    for image, n_before in ((grey_url(*GRID), 7), (grey_url(*GRID), 300), (png_url(1, *GRID), 7)):
        with opens("qwen2vl", budget=512, key_score=key_score) as llm:
            ask(llm, long_text[:n_before], image, "?", n=1)
            first = n_before + len(START)
            found.append(np.log(core.testing.scores(llm._open_context())[0][:, first : first + N_GRID]))
    near, far, of_many_colours = found
    expected = np.repeat(near[:, :1], N_GRID, axis=1)
    np.testing.assert_allclose(near, expected, atol=0.002)
    np.testing.assert_allclose(far, expected, atol=0.002)
    assert np.abs(of_many_colours - expected).max() > 0.3


@pytest.mark.parametrize("mode", [None, "per_layer_head", "global", "recent"])
def test_an_image_larger_than_the_budget_is_read_within_it(mode: str | None, opens: Opens, long_text: str) -> None:
    """Evictions take place inside of it too, and every head keeps as many keys as it should."""
    image = png_url(2, 320, 384)  # 24 rows of 20 tokens, at 24 positions
    settings: dict[str, Any] = {"budget": 128, "mode": mode}
    with opens("qwen2vl", **settings) as llm:
        seen: list[tuple[int, int]] = []
        llm.on_evict(lambda eviction: seen.append((eviction.position, eviction.n_after)))
        told, _ = ask(llm, long_text[:200], image, long_text[200:600])
        begin = 200 + len(START)
        inside = [position for position, _ in seen if begin < position < begin + 24]
        assert len(inside) >= 2 and {n for _, n in seen} == {128}
        assert llm.n_tokens == begin + 24 + len(END) + 401 + 11
        n_since = llm.n_tokens - seen[-1][0]
        for layer, head in llm.attention_heads:
            kept = llm.kept_positions(layer, head)
            assert len(kept) == llm.kv_stats()["cells_used"] == 128 + n_since
            assert kept[:4].tolist() == [0, 1, 2, 3]
        state = llm.save_state()
        assert state is not None
        goes_on = list(llm.generate(None, 40, temperature=0, ignore_eos=True)), llm.logits.copy()
    with opens("qwen2vl", **settings) as llm:
        llm.load_state(state)
        llm.eval(llm.tokens[-1:])
        assert llm.kv_stats()["cells_used"] == 128 + n_since + 1
    assert told and goes_on[0]


def test_the_first_tokens_alone_are_sinks_if_they_are_an_image(opens: Opens, long_text: str) -> None:
    """All tokens of an image share a position, but not all are among the first."""
    with opens("qwen2vl", budget=128, chat_template="{{ messages[0].content }}|") as llm:
        ask(llm, "", png_url(3, 320, 384), long_text[:100])
        assert llm.kv_stats()["evictions"] > 2


def test_evicted_conversations_about_images_go_on(opens: Opens, long_text: str) -> None:
    image = {"type": "image_url", "image_url": {"url": png_url(1, *GRID)}}
    first = [{"role": "user", "content": [image, {"type": "text", "text": long_text[:500]}]}]
    with opens("qwen2vl", budget=128) as llm:
        answer: Any = llm.create_chat_completion(first, max_tokens=10, temperature=0, ignore_eos=True)
        read = llm.n_tokens
        told = {"role": "assistant", "content": answer["choices"][0]["message"]["content"]}
        more = [*first, told, {"role": "user", "content": long_text[500:600]}]
        llm.create_chat_completion(more, max_tokens=10, temperature=0, ignore_eos=True)
        assert llm.kv_stats()["prompt_tokens_reused"] >= read - 10


def test_a_fourth_coordinate_is_refused(opens: Opens) -> None:
    with pytest.raises(UnsupportedModelError, match="fourth coordinate"):
        opens("hunyuan_vl", budget=128)
