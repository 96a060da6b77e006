"""`Llama.from_pretrained` against a small hub on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pytriattn import Llama, ModelLoadError, TriAttentionStats

pytest.importorskip("huggingface_hub")
COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of one repository as the hub does."""

    folder: pathlib.Path

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/me/tiny"):
            names = sorted(file.name for file in self.folder.iterdir())
            if "/tree/" in path:
                entries: Any = [{"type": "file", "path": name, "size": 1, "oid": "b" * 40} for name in names]
            else:
                entries = {"id": "me/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self.send(json.dumps(entries).encode(), "application/json", with_body)
        elif path.startswith("/me/tiny/resolve/") and (self.folder / path.rsplit("/", 1)[1]).is_file():
            data = (self.folder / path.rsplit("/", 1)[1]).read_bytes()
            self.send(data, "application/octet-stream", with_body)
        else:
            self.send_response(404)
            is_known = path.startswith("/me/tiny/")
            self.send_header("X-Error-Code", "EntryNotFound" if is_known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, data: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, pathlib.Path]]:
    folder = tmp_path / "repository"
    folder.mkdir()
    Hub.folder = folder
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_a_model_and_its_statistics(
    endpoint: tuple[str, pathlib.Path],
    smollm2: pathlib.Path,
    smollm2_stats: TriAttentionStats,
    tmp_path: pathlib.Path,
) -> None:
    url, folder = endpoint
    shutil.copy(smollm2, folder / "model-q4_1.gguf")
    smollm2_stats.save(folder / "model.triattention")
    (folder / "README.md").write_text("a model")
    where: dict[str, Any] = {"endpoint": url, "cache_dir": tmp_path / "cache"}
    with Llama.from_pretrained(
        "me/tiny", "*q4_1.gguf", triattn_stats="model.triattention", budget=256, n_ctx=1024, **where
    ) as llm:
        assert llm.budget == 256
        assert llm.triattn_stats is not None
        assert llm.triattn_stats.corpus_sha256 == smollm2_stats.corpus_sha256
        assert "Paris" in llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
    with Llama.from_pretrained("me/tiny", "model-q4_1.gguf", n_ctx=256, **where) as llm:
        assert llm.budget is None
    # a model that drafts for it, and an encoder of images, by their names
    shutil.copy(smollm2, folder / "small.gguf")
    with Llama.from_pretrained("me/tiny", "*q4_1.gguf", draft_model="small*.gguf", n_ctx=256, **where) as llm:
        list(llm.generate([1, 2, 3], 8, temperature=0, ignore_eos=True))
        assert llm.kv_stats()["tokens_accepted"] > 0
    (folder / "small.gguf").rename(folder / "mmproj.gguf")
    with pytest.raises(ModelLoadError, match=r"mmproj.*not an encoder of images"):
        Llama.from_pretrained("me/tiny", "*q4_1.gguf", mmproj="mmproj*", n_ctx=256, **where)
    (folder / "mmproj.gguf").unlink()
    for pattern, message in (
        ("*.bin", "no single file.*there are README.md"),
        ("model*", "2 files fit: model-q4_1.gguf, model.tri"),
    ):
        with pytest.raises(ModelLoadError, match=message):
            Llama.from_pretrained("me/tiny", pattern, **where)
    with pytest.raises(ModelLoadError, match="'x.gguf' of 'me/nothing' cannot be fetched"):
        Llama.from_pretrained("me/nothing", "x.gguf", **where)


def test_all_parts_of_a_split_model_are_fetched(endpoint: tuple[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    from pytriattn.gguf.hub import download

    url, folder = endpoint
    for number in (1, 2, 3):
        (folder / f"big-{number:05}-of-00003.gguf").write_bytes(bytes([number]))
    first = download("me/tiny", "big-*.gguf", endpoint=url, cache_dir=tmp_path / "cache")
    assert first.name == "big-00001-of-00003.gguf"
    assert [p.read_bytes() for p in sorted(first.parent.iterdir())] == [b"\x01", b"\x02", b"\x03"]


def test_what_is_downloaded_needs_no_network(
    endpoint: tuple[str, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from pytriattn.gguf.hub import download

    url, folder = endpoint
    (folder / "model-q4.gguf").write_bytes(b"model")
    (folder / "other-q8.gguf").write_bytes(b"other")
    where: dict[str, Any] = {"endpoint": url, "cache_dir": tmp_path / "cache"}
    first = download("me/tiny", "*q4.gguf", **where)
    with pytest.raises(ModelLoadError, match="names no single file.*there are model-q4.gguf, other-q8.gguf"):
        download("me/tiny", "model-q5.gguf", **where)

    def refuse(*_: object, **__: object) -> object:
        raise huggingface_hub.errors.OfflineModeIsEnabled("no network")

    for name in ("model-q4.gguf", "*q4.gguf"):
        assert download("me/tiny", name, **where) == first
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    for name in ("model-q4.gguf", "*q4.gguf"):
        assert download("me/tiny", name, **where) == first
    for name in ("other-q8.gguf", "*q8.gguf"):
        with pytest.raises(ModelLoadError, match=r"q8.gguf"):
            download("me/tiny", name, **where)


def test_a_hub_that_has_gone(endpoint: tuple[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    from pytriattn.gguf.hub import download

    _, folder = endpoint
    (folder / "model-q4.gguf").write_bytes(b"model")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where: dict[str, Any] = {"endpoint": f"http://127.0.0.1:{server.server_port}", "cache_dir": tmp_path / "cache"}
        first = download("me/tiny", "model-q4.gguf", **where)
        server.shutdown()
    assert download("me/tiny", "model-q4.gguf", **where) == first
