"""Processes that are started anew while a model is open, and processes that end with live models."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys
import textwrap

import pytest

from models.registry import make_tiny_model
from pytriattn import Llama

# A program of a user: the parent keeps a model and a half-read stream, and children load the same file.
_SPAWNING = """
    import multiprocessing, sys
    from pytriattn import Llama

    SETTINGS = {"n_ctx": 512, "n_threads": 2, "budget": 128, "interval": 32, "window": 16, "mode": "recent"}

    def text(path):
        with Llama(path, **SETTINGS) as llm:
            found = llm("Once upon a time " * 20, max_tokens=40, temperature=0.9, seed=3)["choices"][0]["text"]
            assert llm.kv_stats()["evictions"] > 0
            return found

    if __name__ == "__main__":
        path, method = sys.argv[1:]
        with Llama(path, **SETTINGS) as llm:
            pieces = llm("Once", max_tokens=40, seed=3, stream=True, ignore_eos=True)
            streamed = [next(pieces) for _ in range(5)]
            with multiprocessing.get_context(method).Pool(1) as pool:
                for _ in range(2):
                    print(ascii(pool.apply(text, [path])))
            streamed += pieces
            again = llm("Once", max_tokens=40, seed=3, ignore_eos=True)["choices"][0]["text"]
            assert "".join(piece["choices"][0]["text"] for piece in streamed) == again
        print(ascii(text(path)))
"""

_LIVE = """
    import asyncio, atexit, sys, threading, time
    import numpy as np
    from pytriattn import AsyncLlama, Llama

    def opened(**settings):
        return Llama(sys.argv[1], n_ctx=2048, n_threads=2, **settings)

    def in_thread(work, daemon=True):
        started.clear()
        threading.Thread(target=work, daemon=daemon).start()
        started.wait(30)
        time.sleep(0.03)

    def decode(llm, forever=True, **settings):
        while True:
            llm.reset()
            for _ in llm.generate([5, 6], ignore_eos=True, max_tokens=300, **settings):
                started.set()
            if not forever:
                print("done")
                return

    def read(llm):
        while True:
            llm.reset()
            started.set()
            llm.eval([5] * 2000)

    started = threading.Event()
    llm = opened()
"""

ENDINGS = {
    "model": "llm('Once', max_tokens=4)",
    "generation": "words = llm.generate([5, 6, 7], ignore_eos=True); next(words)",
    "stream": "pieces = llm('Once', max_tokens=None, ignore_eos=True, stream=True); next(pieces)",
    "evicting": """
        llm = opened(budget=128, interval=32, window=16, mode="recent")
        seen = []
        llm.on_evict(lambda eviction: seen.append((llm, eviction)))  # a cycle
        words = llm.generate([5] * 400, ignore_eos=True)
        next(words)
        assert seen
    """,
    "async": "model = AsyncLlama(llm); asyncio.run(model.create_completion('Once', max_tokens=4))",
    "async stream": """
        async def main():
            global pieces
            pieces = await model.create_completion("Once", max_tokens=None, ignore_eos=True, stream=True)
            async for _ in pieces:
                break

        model = AsyncLlama(llm)
        asyncio.run(main())
    """,
    "used at exit": "atexit.register(lambda: llm('Once', max_tokens=4))",
    "used when freed": """
        class App:
            def __init__(self):
                self.llm = llm

            def __del__(self):
                self.llm.eval([5, 6])

        app = App()
    """,
    "thread": "in_thread(lambda: decode(llm, forever=False), daemon=False)",
}

DAEMONS = {
    "decodes": "in_thread(lambda: decode(llm))",
    "reads": "in_thread(lambda: read(llm))",
    "evicts": """
        llm = opened(budget=128, interval=16, window=16, mode="recent")
        llm.on_evict(lambda eviction: None)
        in_thread(lambda: decode(llm))
    """,
    "chooses": """
        def choose(view):
            started.set()
            time.sleep(0.01)
            kept = view.is_protected.copy()
            kept[np.flatnonzero(~kept)[: view.n_keep - int(kept.sum())]] = True
            return [np.tile(kept, (layer.n_head_kv, 1)) for layer in view.layers]

        llm = opened(budget=128, interval=16, window=16, mode="custom", chooser=choose)
        in_thread(lambda: read(llm))
    """,
    "changes logits": """
        def change(_, logits):
            time.sleep(0.01)
            return logits

        in_thread(lambda: decode(llm, logits_processor=change))
    """,
    "loads": """
        def progress(_):
            started.set()
            time.sleep(0.01)

        def load():
            while True:
                opened(progress=progress).close()

        in_thread(load)
    """,
    "calibrates": """
        from pytriattn import calibrate

        def progress(*_):
            started.set()
            time.sleep(0.01)

        in_thread(lambda: calibrate(llm, "Once upon a time " * 1000, n_tokens=4096, n_ctx=64, progress=progress))
    """,
}


@pytest.fixture
def model(tiny_folder: pathlib.Path) -> pathlib.Path:
    return make_tiny_model("llama", tiny_folder, of_bytes=True)


def run(*command: str | pathlib.Path) -> tuple[int, str, str]:
    """Return the exit code of a Python program, and what it wrote to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_starts_anew_computes_what_its_parent_does(
    model: pathlib.Path, tmp_path: pathlib.Path, method: str
) -> None:
    if method == "forkserver" and sys.platform == "win32":
        pytest.skip("this system has no fork server")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(_SPAWNING))
    code, out, errors = run(program, model, method)
    assert (code, errors) == (0, "")
    child, child_again, parent = out.splitlines()
    assert child == child_again == parent
    assert len(parent) > 40


def test_a_model_cannot_be_sent_to_another_process(model: pathlib.Path) -> None:
    with Llama(model, n_ctx=64, n_threads=1) as llm, pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(llm)


@pytest.mark.parametrize("live", ENDINGS)
def test_a_process_ends_with_live_objects(model: pathlib.Path, live: str) -> None:
    code = textwrap.dedent(_LIVE) + textwrap.dedent(ENDINGS[live])
    assert run("-c", code, model) == (0, "done\n" if live == "thread" else "", "")


@pytest.mark.slow
def test_a_process_ends_with_a_live_server(model: pathlib.Path) -> None:
    program = "import sys; from pytriattn.server import Server"
    program += "; server = Server(sys.argv[1], n_ctx=256, n_threads=1); print(server.pid)"
    code, out, errors = run("-c", program, model)
    assert (code, errors) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(out), 0)  # it has ended too


@pytest.mark.parametrize("does", DAEMONS)
def test_a_process_ends_while_a_daemon_thread_computes(model: pathlib.Path, does: str) -> None:
    code = textwrap.dedent(_LIVE) + textwrap.dedent(DAEMONS[does])
    assert run("-c", code, model) == (0, "", "")
