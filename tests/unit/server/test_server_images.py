"""Images in a server within a budget, with an encoder of random weights."""

from __future__ import annotations

import pathlib

import pytest

from models.registry import make_tiny_model
from models.vision import N_TOKENS, make_projector, png_url
from pytriattn import BackendError
from pytriattn.server import Server
from support.server_client import ask

pytestmark = pytest.mark.slow


SIZES = (80, 96), (320, 384)


def messages(*texts: str, seed: int = 0, url: str | None = None) -> list[dict]:
    """Return a conversation whose first message has an image in the middle."""
    image = {"type": "image_url", "image_url": {"url": url or png_url(seed)}}
    first = {"role": "user", "content": [{"type": "text", "text": texts[0]}, image, {"type": "text", "text": texts[1]}]}
    roles = ("assistant", "user")
    return [first, *({"role": roles[n % 2], "content": text} for n, text in enumerate(texts[2:]))]


def start(model: pathlib.Path, projector: pathlib.Path, budget: int | None, **settings: object) -> Server:
    template = projector.parent / "template.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}|{% endfor %}")
    # checkpoints would divide the prompt in another way
    flags = ["--mmproj", str(projector), "--slots", "--cache-ram", "0", "--ctx-checkpoints", "0"]
    flags += ["--chat-template-file", str(template)]
    defaults: dict = {"n_ctx": 4096, "n_threads": 1, "window": None if budget is None else 32}
    return Server(model, budget=budget, arguments=flags, **{**defaults, **settings})


def chat(server: Server, conversation: list[dict], n: int = 12) -> dict:
    body = {"messages": conversation, "max_tokens": n, "temperature": 0, "logprobs": True, "top_logprobs": 5}
    answer: dict = ask(f"{server.url}/v1/chat/completions", {**body, "ignore_eos": True, "id_slot": 0})
    return answer


def test_a_text_behind_an_image(tmp_path: pathlib.Path, long_text: str) -> None:
    """Bit for bit what it is without a budget, as long as nothing is evicted; and something else for another image."""
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    projector = make_projector(tmp_path / "mmproj.gguf")
    conversation = messages(long_text[:200], long_text[200:300])
    with start(model, projector, None) as server:
        free = chat(server, conversation)
    with start(model, projector, 1024) as server:
        held = chat(server, conversation)
        other = chat(server, messages(long_text[:200], long_text[200:300], seed=1))
    assert free["usage"]["prompt_tokens"] == 300 + N_TOKENS + 1
    assert held["choices"] == free["choices"]
    assert other["choices"][0]["logprobs"] != free["choices"][0]["logprobs"]


def test_a_conversation_about_an_image_goes_on_after_evictions(tmp_path: pathlib.Path, long_text: str) -> None:
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    with start(model, make_projector(tmp_path / "mmproj.gguf"), 128, interval=32) as server:
        first = chat(server, messages(long_text[:500], long_text[500:900]))
        slot = ask(f"{server.url}/slots")[0]["triattention"]
        assert slot["evictions"] > 4 and slot["resident_keys"] < 128 + 64
        told = first["choices"][0]["message"]["content"]
        again = chat(server, messages(long_text[:500], long_text[500:900], told, long_text[900:1000]))
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 900


def test_images_with_rows_and_columns(tmp_path: pathlib.Path, long_text: str) -> None:
    """M-RoPE: as without a budget as long as nothing is evicted; an image larger than the budget is read within it."""
    model = make_tiny_model("qwen2vl", tmp_path, of_bytes=True)
    projector = make_projector(tmp_path / "mmproj.gguf", 128, "qwen2vl_merger")
    small, large = (messages(long_text[:200], long_text[200:300], url=png_url(1, *size)) for size in SIZES)
    with start(model, projector, None) as server:
        free = chat(server, small)
    with start(model, projector, 1024) as server:
        assert chat(server, small)["choices"] == free["choices"]
    with start(model, projector, 128, interval=32) as server:
        first = chat(server, large)
        slot = ask(f"{server.url}/slots")[0]["triattention"]
        assert slot["evictions"] > 4 and slot["resident_keys"] < 128 + 64
        told = first["choices"][0]["message"]["content"]
        again = chat(server, [*large, {"role": "assistant", "content": told}, {"role": "user", "content": "and?"}])
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 300


def test_images_with_a_fourth_coordinate_are_refused(tmp_path: pathlib.Path) -> None:
    model = make_tiny_model("hunyuan_vl", tmp_path, of_bytes=True)
    with pytest.raises(BackendError, match="fourth coordinate"):
        start(model, make_projector(tmp_path / "mmproj.gguf"), 128)
