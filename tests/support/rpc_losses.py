"""A program that kills servers in the middle of what they do, and prints what the user of each would see."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn import Llama, ModelLoadError, ServerLostError, calibrate
from pytriattn._native import core
from support.rpc_server import RpcServer

TEXT = "The history of the lighthouse is long. " * 40
PHASES = ("loading", "calibrating", "prompt", "decoding", "evicting", "moving", "idle", "saving", "one_of_two", "hung")


class Phases:
    """Each kills a server while ggml is in the middle of something with it."""

    def __init__(self, model: pathlib.Path, stats: pathlib.Path) -> None:
        self.model, self.stats = model, stats
        self.loaded: list[Llama] = []
        self.server = RpcServer()

    def load(self, *more: str, **settings: Any) -> Llama:
        servers = [self.server.address, *more]
        llm = Llama(self.model, **{"n_ctx": 8192, "triattn_stats": self.stats, "rpc_servers": servers, **settings})
        self.loaded.append(llm)
        return llm

    def later(self, seconds: float) -> None:
        threading.Timer(seconds, self.server.kill).start()

    def loading(self) -> None:
        self.load(progress=lambda done: self.server.kill() if done > 0.3 else None)

    def calibrating(self) -> None:
        calibrate(self.load(), TEXT, n_tokens=256, n_ctx=64, progress=lambda done, total: self.server.kill())

    def prompt(self) -> None:
        llm = self.load()
        self.later(0.2)
        llm.logprobs(llm.tokenize(TEXT) * 20)

    def decoding(self) -> None:
        for i, _ in enumerate(self.load()(TEXT, max_tokens=200, temperature=0, stream=True)):
            if i == 5:
                self.server.kill()

    def evicting(self) -> None:
        llm = self.load(budget=128, interval=32)
        llm.on_evict(lambda eviction: self.server.kill())
        llm(TEXT, max_tokens=200, temperature=0)

    def moving(self) -> None:
        """After the keys have been chosen, before their rows move."""

        def choose(view: core.EvictionView) -> list[npt.NDArray[np.bool_]]:
            self.server.kill()
            kept = view.is_protected.copy()
            kept[np.flatnonzero(~kept)[: view.n_keep - int(kept.sum())]] = True
            marks = [np.tile(kept, (layer.n_head_kv, 1)) for layer in view.layers]
            for layer in marks:  # each head keeps others, so that rows have to move
                for head, row in enumerate(layer):
                    free = np.flatnonzero(~view.is_protected)
                    row[free] = np.roll(row[free], head)
            return marks

        self.load(budget=128, interval=32, mode="custom", chooser=choose)(TEXT, max_tokens=200, temperature=0)

    def idle(self) -> None:
        llm = self.load()
        llm(TEXT, max_tokens=2)
        self.server.kill()
        time.sleep(0.1)
        llm.kv_stats()

    def saving(self) -> None:
        llm = self.load()
        llm.eval(llm.tokenize(TEXT))
        self.server.kill()
        llm.save_state()

    def one_of_two(self) -> None:
        with RpcServer() as second:
            llm = self.load(second.address, budget=128, interval=32, tensor_split=[1, 1])
            self.later(0.3)
            llm(TEXT, max_tokens=400, temperature=0)

    def hung(self) -> None:
        for i, _ in enumerate(self.load()(TEXT, max_tokens=200, temperature=0, stream=True)):
            if i == 5:
                self.server.process.send_signal(signal.SIGSTOP)
                for seconds in (0.4, 0.8):  # the first Ctrl-C would wait for the step, the second does not
                    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()

    def run(self, name: str) -> str:
        """Return the name of the exception that the user sees."""
        try:
            getattr(self, name)()
        except (ServerLostError, ModelLoadError) as error:
            assert self.server.address in str(error)
            assert "load the model again" in str(error)
            seen = type(error).__name__
        except KeyboardInterrupt as error:
            seen = type(error).__name__
            self.server.kill()
        else:
            seen = "nothing"
        for llm in self.loaded:
            with pytest.raises(ServerLostError):
                llm("again")
            llm.close()
        return seen


def main(model: pathlib.Path, stats: pathlib.Path) -> None:
    for name in PHASES:
        phases = Phases(model, stats)
        print(name, phases.run(name), flush=True)
    # the last address is good again once a server runs there
    with RpcServer(port=phases.server.port) as anew, Llama(model, n_ctx=256, rpc_servers=[anew.address]) as llm:
        llm("Once", max_tokens=2)
    print("alive")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
