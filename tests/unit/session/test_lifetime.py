"""Who is freed when: cycles through callables of the user, and processes that fork."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import pathlib
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn import AsyncLlama, Llama
from pytriattn._native import core

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # processes that fork with threads


class App:
    """An object that holds a model and gives it methods of its own."""

    def __init__(self, model: pathlib.Path, **settings: Any) -> None:
        if settings.get("mode") == "custom":
            settings["chooser"] = self.choose
        self.llm = Llama(model, n_ctx=1024, n_threads=1, **settings)
        self.held: Any = None

    def change(self, _: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return logits

    def choose(self, view: core.EvictionView) -> list[npt.NDArray[np.bool_]]:
        kept = view.is_protected.copy()
        kept[np.flatnonzero(~kept)[: view.n_keep - int(kept.sum())]] = True
        return [np.tile(kept, (layer.n_head_kv, 1)) for layer in view.layers]


def generation(app: App) -> object:
    words = app.llm.generate([1, 2, 3], max_tokens=5, logits_processor=app.change)
    next(words)
    return words


def stream(app: App) -> object:
    pieces = app.llm("x", max_tokens=5, stream=True, logits_processor=[app.change])
    next(iter(pieces))
    return pieces


def chat_stream(app: App) -> object:
    return app.llm.create_chat_completion([{"role": "user", "content": "x"}], stream=True, logits_processor=app.change)


def callback(app: App) -> object:
    app.llm.on_evict(lambda _: app.llm)
    return None


def evictions(app: App) -> object:
    app.llm.eval(list(range(100, 400)))
    assert app.llm.kv_stats()["evictions"] > 0
    return None


@pytest.mark.parametrize("hold", [generation, stream, chat_stream, callback, evictions])
def test_an_object_whose_methods_are_called_is_freed(smollm2: pathlib.Path, hold: Callable[[App], object]) -> None:
    settings = {"mode": "custom", "budget": 128, "interval": 32, "window": 16} if hold is evictions else {}
    app = App(smollm2, **settings)
    app.held = hold(app)
    freed = weakref.ref(app.llm)
    del app
    gc.collect()
    assert freed() is None


def run_in_fork(work: Callable[[], object]) -> str:
    """Return what came of some work in a forked child: its value, or its error's type and text."""

    def child(queue: Any) -> None:
        try:
            queue.put(str(work()))
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

    context: Any = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), daemon=True)
    process.start()
    try:
        result: str = queue.get(timeout=60)
        return result
    finally:
        process.kill()


def has_openmp() -> bool:
    return dict(core.backend_features("CPU")).get("OPENMP", "0") != "0"


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_child_computes_or_says_why_not(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=256, n_threads=2) as llm, Llama(smollm2, n_ctx=256, n_threads=1) as alone:
        llm("x", max_tokens=1)
        works: list[Callable[[], object]] = [
            lambda: llm("x", max_tokens=1)["usage"]["completion_tokens"],
            lambda: Llama(smollm2, n_ctx=256, n_threads=2)("x", max_tokens=1)["usage"]["completion_tokens"],
            lambda: len(llm.embed("x")) // llm.n_embd(),
        ]
        for work in works:
            found = run_in_fork(work)
            assert found.startswith("BackendError: this process was forked") if has_openmp() else found == "1"
        if all(found.name == "CPU" for found in core.backend_list() if found.n_devices):
            assert run_in_fork(lambda: alone("x", max_tokens=1)["usage"]["completion_tokens"]) == "1"
        assert llm("x", max_tokens=1)["usage"]["completion_tokens"] == 1  # the parent goes on


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_an_async_model_has_a_thread_after_a_fork(smollm2: pathlib.Path) -> None:
    llm = AsyncLlama(Llama(smollm2, n_ctx=256, n_threads=1))
    assert asyncio.run(llm.logprobs([1, 2])).shape == (1,)
    assert run_in_fork(lambda: asyncio.run(llm.logprobs([1, 2])).shape) == "(1,)"
    asyncio.run(llm.close())
