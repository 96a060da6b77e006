"""Images in chats, with an encoder of random weights."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.registry import make_tiny_model
from models.vision import N_TOKENS, make_projector, png_url
from pytriattn import (
    ContextError,
    ContextFullError,
    ImageError,
    Llama,
    LlamaPromptLookupDecoding,
    ModelLoadError,
    StateError,
)

TEMPLATE = "{% for message in messages %}{{ message.content }}|{% endfor %}"
GREEDY: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
KINDS = {"qwen2vl": "qwen2vl_merger", "gemma3": "gemma3"}
Opens = Callable[..., Llama]


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def png(seed: int = 0) -> bytes:
    return base64.b64decode(png_url(seed).partition(",")[2])


def messages(*texts: str, seed: int = 0, url: Any = None) -> list[dict[str, Any]]:
    """Return a conversation whose first message has an image in the middle."""
    parts = [
        {"type": "text", "text": texts[0]},
        image(png_url(seed) if url is None else url),
        {"type": "text", "text": texts[1]},
    ]
    roles = ("assistant", "user")
    rest = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts[2:])]
    return [{"role": "user", "content": parts}, *rest]


@pytest.fixture
def opens(tiny_folder: pathlib.Path) -> Opens:
    def open_tiny(arch: str = "llama", **settings: Any) -> Llama:
        model = make_tiny_model(arch, tiny_folder, of_bytes=True)
        projector = tiny_folder / f"mmproj-{arch}.gguf"
        if not projector.exists():
            make_projector(projector, 128 if arch == "qwen2vl" else 64, KINDS.get(arch, "mlp"))
        defaults: dict[str, Any] = {"n_ctx": 4096, "n_threads": 1, "mmproj": projector, "chat_template": TEMPLATE}
        if settings.get("budget"):
            defaults |= {"window": 32, "interval": 32}
        return Llama(model, **{**defaults, **settings})

    return open_tiny


def answer(llm: Llama, conversation: list[dict[str, Any]], **settings: Any) -> tuple[str, npt.NDArray[np.float32], int]:
    """Return the answer, the logits of its last token, and how many tokens the prompt has."""
    found: Any = llm.create_chat_completion(conversation, **{**GREEDY, **settings})
    return found["choices"][0]["message"]["content"], llm.logits.copy(), found["usage"]["prompt_tokens"]


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen35"])
def test_a_text_behind_an_image(arch: str, opens: Opens, long_text: str) -> None:
    """Bit for bit what it is without a budget, as long as nothing is evicted; and something else for another image."""
    conversation = messages(long_text[:200], long_text[200:300])
    other = messages(long_text[:200], long_text[200:300], seed=1)
    with opens(arch) as llm:
        text, logits, n_prompt = answer(llm, conversation)
    assert n_prompt == 300 + N_TOKENS + 1 + (len("<start_of_image><end_of_image>") if arch == "gemma3" else 0)
    with opens(arch, budget=1024) as llm:
        held, same, _ = answer(llm, conversation)
        assert held == text
        np.testing.assert_array_equal(same, logits)
        assert llm.kv_stats()["cells_used"] == n_prompt + 11
        assert not np.array_equal(answer(llm, other)[1], logits)


def test_a_conversation_about_an_image_goes_on(opens: Opens, long_text: str) -> None:
    with opens() as llm:
        first = messages(long_text[:500], long_text[500:900])
        told, _, n_prompt = answer(llm, first)
        grown = messages(long_text[:500], long_text[500:900], told, long_text[900:1000])
        text, logits, _ = answer(llm, grown)
        assert llm.kv_stats()["prompt_tokens_reused"] >= n_prompt
        llm.reset()
        anew, close, _ = answer(llm, grown)
        assert anew == text
        np.testing.assert_allclose(close, logits, atol=1e-2)
        answer(llm, messages(long_text[:500], long_text[500:900], seed=1))
        assert llm.kv_stats()["prompt_tokens_reused"] == 500  # another image
        # an image that is cut through is read again
        llm.truncate(507)
        assert llm.tokens[499] >= 0 > max(llm.tokens[500:])
        answer(llm, messages(long_text[:500], long_text[500:900], seed=1))
        assert llm.kv_stats()["prompt_tokens_reused"] == 500
        answer(llm, [{"role": "user", "content": long_text[:800]}])
        assert llm.kv_stats()["prompt_tokens_reused"] == 500
        expected = answer(llm, first, max_tokens=20)[0]
        answer(llm, first)
        goes_on = llm.generate(None, 9, temperature=0, ignore_eos=True)
        assert (told + llm.detokenize(goes_on)).startswith(told) and expected.startswith(told)


@pytest.mark.parametrize("settings", [{}, {"reread": True}, {"prefill": "full"}, {"mode": "global"}])
def test_evictions_take_images_as_any_other_keys(settings: dict[str, Any], opens: Opens, long_text: str) -> None:
    with opens(budget=128, **settings) as llm:
        told, _, n_prompt = answer(llm, messages(long_text[:500], long_text[500:900]))
        stats = llm.kv_stats()
        assert stats["evictions"] > (0 if settings.get("prefill") else 4) and stats["cells_used"] < 128 + 32 + 12
        assert stats["question"] == (n_prompt - 65, n_prompt - 1) or settings.get("mode")
        answer(llm, messages(long_text[:500], long_text[500:900], told, long_text[900:1000]))
        assert llm.kv_stats()["prompt_tokens_reused"] >= n_prompt
        state = llm.save_state()
        llm.eval([5])
        logits = llm.logits.copy()
        assert state is not None
    with opens(budget=128, **settings) as llm:
        llm.load_state(state)
        llm.eval([5])
        np.testing.assert_array_equal(llm.logits, logits)
    with opens(budget=128, mmproj=None, **settings) as llm, pytest.raises(StateError, match="mmproj"):
        llm.load_state(state)


def test_ways_to_give_an_image(opens: Opens, tmp_path: pathlib.Path, long_text: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png())
    with opens() as llm:
        expected = answer(llm, messages(long_text[:50], "what?"))[0]
        for url in (png(), path, "data:," + "".join(f"%{byte:02x}" for byte in png())):
            assert answer(llm, messages(long_text[:50], "what?", url=url))[0] == expected
            assert llm.kv_stats()["prompt_tokens_read"] == 1
        plain = messages(long_text[:50], "what?")
        plain[0]["content"][1]["image_url"] = png_url(0)  # as llama-cpp-python takes it
        assert answer(llm, plain)[0] == expected
        several: Any = llm.create_chat_completion(plain, n=2, **GREEDY)
        assert [choice["message"]["content"] for choice in several["choices"]] == [expected, expected]
        pieces: Any = llm.create_chat_completion(plain, stream=True, **GREEDY)
        assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces) == expected
        twice = messages(long_text[:50], "what?")
        twice[0]["content"].insert(2, image(png_url(1)))
        text, _, n_prompt = answer(llm, twice)
        assert n_prompt == 50 + 2 * N_TOKENS + len("what?|") and text != expected


def test_drafts_behind_an_image(opens: Opens, long_text: str) -> None:
    conversation = messages(long_text[:500], long_text[500:900])
    with opens(budget=128) as llm:
        plain = answer(llm, conversation, max_tokens=60)[0]
    with opens(budget=128, draft_model=LlamaPromptLookupDecoding(1, 4)) as llm:
        assert answer(llm, conversation, max_tokens=60)[0] == plain
        assert llm.kv_stats()["tokens_drafted"] > 0


BAD: list[tuple[Any, str]] = [
    (b"no image at all", "image 1 is none that can be read"),
    (b"", "image 1 is none that can be read"),
    (png()[:-300], "image 1 is damaged"),
    ("data:image/png;base64,###", "image 1: its data: URL is not base64"),
    ("https://example.com/cat.png", "never fetched or opened"),
    ("file:///etc/passwd", "never fetched or opened"),
    (pathlib.Path("nowhere.png"), "'nowhere.png' cannot be read"),
    (7, "image 1 is int"),
    (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x2e\xe0\0\0\x2e\xe0\x08\x02\0\0\0" + bytes(8) + b"IDAT" + bytes(4),
        "more than 100 million",
    ),
    (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\0\0\0\0", "none that can be read"),
]


@pytest.mark.parametrize(("url", "message"), BAD, ids=lambda value: repr(value)[:20])
def test_bad_images_are_refused(url: Any, message: str, opens: Opens) -> None:
    with opens() as llm:
        llm.eval([1, 2, 3])
        with pytest.raises(ImageError, match=message):
            llm.create_chat_completion(messages("a", "b", url=url))
        assert llm.tokens == [1, 2, 3]


def test_what_does_not_go_together_is_refused(opens: Opens, tiny_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with opens(mmproj=None) as llm, pytest.raises(ImageError, match="mmproj=..."):
        llm.create_chat_completion(messages("a", "b"))
    with pytest.raises(ModelLoadError, match="nowhere"):
        opens(mmproj="nowhere.gguf")
    with pytest.raises(ModelLoadError, match="architecture 'llama', not an encoder"):
        opens(mmproj=make_tiny_model("llama", tiny_folder, of_bytes=True))
    with pytest.raises(ModelLoadError, match="published with this model"):
        opens(mmproj=make_projector(tmp_path / "other.gguf", 96))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(make_projector(tmp_path / "whole.gguf", 64).read_bytes()[:20000])
    with pytest.raises(ModelLoadError):
        opens(mmproj=damaged)
    with opens(n_ctx=256) as llm, pytest.raises(ContextFullError, match="more than n_ctx"):
        llm.create_chat_completion(messages("a" * 150, "b" * 100))
    with (
        opens(chat_template="{{ messages[0].content[0] }}") as llm,
        pytest.raises(ImageError, match="puts 0 of 1 images"),
    ):
        llm.create_chat_completion(messages("a", "b"))
    with opens(chat_template="{{ messages[0].content }}") as llm, pytest.raises(ImageError, match="ends with an image"):
        llm.create_chat_completion([{"role": "user", "content": [image(png())]}])


def test_what_is_read_in_one_step_needs_room_for_it(opens: Opens, long_text: str) -> None:
    conversation = messages(long_text[:500], long_text[500:900])
    with opens("gemma3", budget=128) as llm:
        answer(llm, conversation)
        assert llm.kv_stats()["evictions"] > 4
    for settings in ({"n_ubatch": 8}, {"budget": 128, "n_ubatch": 8}):
        with opens("gemma3", **settings) as llm:
            llm.eval([1, 2, 3])
            with pytest.raises(ContextError, match="16 tokens in one step, and the context has room for 8"):
                answer(llm, conversation)
            assert llm.tokens == [1, 2, 3]


def test_images_with_positions_in_two_dimensions(opens: Opens, long_text: str) -> None:
    grid = png_url(3, 80, 96)  # 5 x 6 tokens, which take 6 positions
    conversation = messages(long_text[:200], long_text[200:300], url=grid)
    with opens("qwen2vl") as llm:
        told, logits, n_prompt = answer(llm, conversation)
        n_text = 300 + len("<|vision_start|><|vision_end|>|")
        assert n_prompt == n_text + 30
        assert llm.n_tokens == n_text + 6 + 11
        assert llm.kv_stats()["cells_used"] == n_prompt + 11
        answer(llm, messages(long_text[:200], long_text[200:300], told, long_text[300:400], url=grid))
        assert llm.kv_stats()["prompt_tokens_reused"] >= n_text + 6
        again, same, _ = answer(llm, conversation)
        assert again == told
        np.testing.assert_allclose(same, logits, atol=1e-3)
    with opens("qwen2vl", n_ctx=256) as llm, pytest.raises(ContextFullError):
        twenty = [image(png_url(seed, 64, 64)) for seed in range(20)]
        llm.create_chat_completion([{"role": "user", "content": [*twenty, {"type": "text", "text": "?"}]}])
