"""An exception of a signal may come at any moment: what an object says that it has read is what its cache holds."""

from __future__ import annotations

import random
import signal
from types import FrameType

import numpy as np
import pytest

from pytriattn import ContextFullError, Llama
from support.tiny_context import Tiny

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")

N_CTX = 400


class Worker:
    """Calls methods of a model in any order until a signal comes."""

    def __init__(self, llm: Llama, seed: int) -> None:
        self.llm = llm
        self.chance = random.Random(seed)
        self.state: bytes | None = None
        self.is_armed = False

    def raise_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.is_armed:
            self.is_armed = False
            raise KeyboardInterrupt

    def work(self) -> None:
        """Work until a signal comes; returns early if the text is full."""
        self.is_armed = True
        signal.setitimer(signal.ITIMER_REAL, self.chance.random() * 0.01 + 1e-4)
        for _ in range(10_000):
            self.call()

    def call(self) -> None:
        llm, chance = self.llm, self.chance
        tokens = [chance.randrange(3, 240) for _ in range(chance.randrange(1, 30))]
        match chance.randrange(7):
            case 0:
                llm.eval(tokens)
            case 1:
                list(llm.generate(tokens, max_tokens=6, ignore_eos=True, seed=1))
            case 2:
                llm.truncate(len(llm.tokens) - chance.randrange(20))
            case 3:
                llm.reset()
            case 4:
                state = llm.save_state()
                assert isinstance(state, bytes)
                self.state = state
            case 5:
                if self.state is not None:
                    llm.load_state(self.state)
            case _:
                llm.score_next(tokens, 1)


@pytest.mark.slow
def test_an_exception_at_any_moment_leaves_books_and_cache_alike(tiny: Tiny) -> None:
    n_interrupted = 0
    with Llama(tiny("llama"), n_ctx=N_CTX, n_threads=1) as llm, Llama(tiny("llama"), n_ctx=N_CTX, n_threads=1) as other:
        worker = Worker(llm, seed=5)
        before = signal.signal(signal.SIGALRM, worker.raise_interrupt)
        try:
            for _ in range(300):
                try:
                    worker.work()
                except KeyboardInterrupt:
                    n_interrupted += 1
                except ContextFullError:
                    pass
                worker.is_armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                if len(llm.tokens) >= N_CTX - 2:
                    llm.reset()
                llm.eval([7, 8])
                other.reset()
                other.eval(llm.tokens)
                assert llm.n_tokens == len(llm.tokens) == other.n_tokens
                np.testing.assert_allclose(llm.logits, other.logits, atol=2e-2)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert n_interrupted > 100
