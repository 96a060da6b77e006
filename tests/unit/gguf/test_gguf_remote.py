"""Models are read from servers, by their addresses, and no more of them than is needed."""

from __future__ import annotations

import http.server
import pathlib
import re
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from pytriattn import ModelLoadError
from pytriattn.gguf import source as gguf_source
from pytriattn.gguf.metadata import read_metadata
from pytriattn.model_info.reader import gguf_info
from support.gguf_bytes import FACTORS, gguf_bytes, model_keys, write_split


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves `files` by their paths, in the ways that servers do and in some that they should not."""

    files: dict[str, bytes] = {}
    n_bytes = 0
    behaviour = ""
    release = threading.Event()

    def do_GET(self) -> None:
        cls = type(self)
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = cls.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        if cls.behaviour == "slow":
            cls.release.wait(10)
            return
        if cls.behaviour in ("401", "500"):
            self.send_error(int(cls.behaviour))
            return
        wanted = re.match(r"bytes=(\d+)-(\d+)$", self.headers["Range"])
        assert wanted is not None
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if cls.behaviour == "whole":
            self._answer(200, data)
        elif first >= len(data):
            self.send_error(416)
        else:
            shown = first + 1 if cls.behaviour == "other range" else first
            body = data[first : last + 1]
            body = body[:20] if cls.behaviour == "short" else body
            self._answer(206, body, f"bytes {shown}-{last}/{len(data)}")

    def _answer(self, status: int, body: bytes, content_range: str = "") -> None:
        type(self).n_bytes += len(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    RangeHandler.files, RangeHandler.n_bytes, RangeHandler.behaviour = {}, 0, ""
    RangeHandler.release.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        RangeHandler.release.set()
        running.shutdown()


LARGE = gguf_bytes(
    "llama",
    model_keys(),
    {"big": np.zeros((1000, 1000)), **FACTORS},
    bare_keys={"tokenizer.ggml.tokens": [f"token {i}" for i in range(60_000)]},
)


def test_remote_models_are_read_by_ranges(server: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.gguf").write_bytes(LARGE)
    RangeHandler.files = {"/a/model.gguf": LARGE}
    remote, local = gguf_info(f"{server}/a/model.gguf"), gguf_info(tmp_path / "model.gguf")
    assert remote.path == f"{server}/a/model.gguf"
    assert (remote.file_bytes, remote.n_vocab) == (len(LARGE), 60_000)
    np.testing.assert_array_equal(remote.layers[0].rope.factors, local.layers[0].rope.factors)
    assert remote.kv_bytes(4096, 512) == local.kv_bytes(4096, 512)
    assert RangeHandler.n_bytes < len(LARGE) // 2
    assert gguf_info(f"{server}/moved/a/model.gguf").file_bytes == len(LARGE)  # as Hugging Face's are


def test_remote_parts_are_found(server: str, tmp_path: pathlib.Path) -> None:
    for path in write_split(tmp_path, "model", 2, model_keys()):
        RangeHandler.files[f"/{path.name}"] = path.read_bytes()
    metadata = read_metadata(f"{server}/model-00002-of-00002.gguf")
    assert metadata.path == f"{server}/model-00001-of-00002.gguf"
    assert len(metadata.tensors) == 2
    RangeHandler.files |= {f"{name}?download=true": data for name, data in RangeHandler.files.items()}
    assert len(read_metadata(f"{server}/model-00001-of-00002.gguf?download=true").parts) == 2
    del RangeHandler.files["/model-00001-of-00002.gguf"]
    with pytest.raises(ModelLoadError, match="part 1 of 2.*has no such file"):
        read_metadata(f"{server}/model-00002-of-00002.gguf")


def test_names_of_hugging_face(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{server}/")
    small = gguf_bytes("llama", model_keys())
    RangeHandler.files = {"/me/it/resolve/main/q4/a%20b.gguf": small, "/me/it/resolve/v1/x.gguf": small}
    assert gguf_info("hf://me/it/q4/a b.gguf").n_layer == 4
    assert gguf_info("hf://me/it@v1/x.gguf").path == "hf://me/it@v1/x.gguf"
    with pytest.raises(ModelLoadError, match="hf://me/it/y.gguf' has no such file"):
        gguf_info("hf://me/it/y.gguf")
    with pytest.raises(ModelLoadError, match="write hf://owner/repository/path/to/file.gguf"):
        gguf_info("hf://me/it")
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(ModelLoadError, match="HF_ENDPOINT is 'nonsense'"):
        gguf_info("hf://me/it/x.gguf")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("whole", "no range requests.*download it"),
        ("401", "asks for a login; download the file yourself"),
        ("500", "answers 500.*try again later"),
        ("other range", "answered with another range.*download"),
        ("short", "sent 20 bytes of|could not be read.*check the address"),
        ("slow", "has not answered for 0.2 s; try again"),
    ],
)
def test_servers_that_do_not_help(server: str, monkeypatch: pytest.MonkeyPatch, behaviour: str, message: str) -> None:
    monkeypatch.setattr(gguf_source, "TIMEOUT", 0.2)
    RangeHandler.files, RangeHandler.behaviour = {"/model.gguf": LARGE}, behaviour
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_metadata(f"{server}/model.gguf")
    assert f"{server}/model.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{server}/none.gguf", "has no such file; check the address"),
        ("{server}/empty.gguf", "is empty; check the address"),
        ("http://127.0.0.1:1/x.gguf", "cannot be reached.*check the address"),
        ("http://[nonsense", "could not be read|cannot be reached"),
        ("http:///x.gguf", "could not be read|cannot be reached"),
    ],
)
def test_addresses_without_a_model(server: str, address: str, message: str) -> None:
    RangeHandler.files = {"/empty.gguf": b""}
    with pytest.raises(ModelLoadError, match=message):
        read_metadata(address.format(server=server))
