"""How many threads compute, and that their number may change while a text is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytriattn import ContextError, Llama
from support.tiny_context import Tiny


class Following:
    """Stands in place of `IdleCpus`: tells a test's numbers, one after the other."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def look(self) -> int:
        return self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]


def n_computing(llm: Llama) -> int:
    return llm._open_context().params.n_threads


@pytest.mark.alone  # in two threads
@pytest.mark.parametrize("settings", [{}, {"budget": 64, "interval": 16, "window": 8, "mode": "recent"}])
def test_threads_may_change_between_any_two_steps(tiny: Tiny, settings: dict[str, Any]) -> None:
    found = []
    for numbers in ([1], [1, 2, 2, 1, 3]):
        with Llama(tiny("llama"), n_ctx=512, n_threads=1, **settings) as llm:
            llm._idle = Following(*(numbers * 100)[:196])  # type: ignore[assignment]
            logits = []
            for token in range(3, 200):
                llm.eval([token])
                logits.append(llm.logits)
            found.append(np.stack(logits))
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def test_decoding_follows_the_idle_cpus(tiny: Tiny) -> None:
    with Llama(tiny("llama"), n_ctx=64) as llm:
        llm._idle = Following(2, 1, 3, 2)  # type: ignore[assignment]
        seen = []
        llm.eval([3, 4, 5])
        seen.append(n_computing(llm))
        for _ in llm.generate(None, max_tokens=3, ignore_eos=True):
            seen.append(n_computing(llm))
        assert seen == [2, 1, 3, 2]
        llm._idle = Following(1)  # type: ignore[assignment]
        llm.reset()
        list(llm.generate([3, 4, 5], max_tokens=2, ignore_eos=True))
        assert n_computing(llm) == 1


def test_a_number_of_threads_stays_what_it_is(tiny: Tiny) -> None:
    with Llama(tiny("llama"), n_ctx=64, n_threads=2) as llm:
        assert llm._idle is None
        llm.eval([3, 4, 5])
        assert n_computing(llm) == 2
        for wrong in (0, 100_000):
            with pytest.raises(ContextError, match="n_threads is"):
                llm._open_context().set_threads(wrong)
        assert n_computing(llm) == 2
