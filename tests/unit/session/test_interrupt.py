"""Ctrl-C comes back to Python within a second and leaves the object usable."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from pytriattn import BusyError, Llama, TriAttentionStats, calibrate
from pytriattn.stats.bundled import bundled_text
from support.paths import ROOT

pytestmark = [pytest.mark.filterwarnings("ignore::pytriattn.ContextWarning"), pytest.mark.alone]


def interrupted_after(delay: float, work: Callable[[], object]) -> float:
    """Run `work`, press Ctrl-C after `delay` seconds, and return the seconds until Python had the KeyboardInterrupt."""
    pressed = []

    def press() -> None:
        time.sleep(delay)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    seconds = time.monotonic() - pressed[0]
    thread.join()
    return seconds


@pytest.fixture
def llm(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> Llama:
    return Llama(smollm2, triattn_stats=smollm2_stats, budget=512, n_ctx=100_000)


def test_during_prefill(llm: Llama, long_text: str) -> None:
    tokens = llm.tokenize(long_text)
    assert len(tokens) > 15_000  # many seconds of work
    assert interrupted_after(0.5, lambda: llm.generate(tokens)) < 1.0
    assert llm.n_tokens == 0
    assert "Paris" in llm("The capital of France is", max_tokens=5, temperature=0)["choices"][0]["text"]
    llm.close()


def test_during_decoding_and_logprobs(llm: Llama, long_text: str) -> None:
    assert interrupted_after(0.5, lambda: list(llm.generate([1, 2, 3], ignore_eos=True))) < 1.0
    assert interrupted_after(0.5, lambda: llm.logprobs(llm.tokenize(long_text))) < 1.0
    assert len(llm.logprobs([1, 2, 3])) == 2
    llm.close()


def test_an_interrupted_generation_does_not_go_on_with_other_text(llm: Llama) -> None:
    generation = llm.generate([1, 2, 3], ignore_eos=True)
    assert interrupted_after(0.5, lambda: list(generation)) < 1.0
    with pytest.raises(BusyError):
        next(generation)
    assert llm.n_tokens == 0
    llm.close()


def test_during_calibration(smollm2: pathlib.Path) -> None:
    text = bundled_text() * 40
    assert interrupted_after(0.7, lambda: calibrate(smollm2, text, n_tokens=50_000)) < 1.0


@pytest.mark.slow
def test_the_command_line(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(bundled_text() * 40)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytriattn.cli.calibrate",
            str(corpus),
            "-m",
            str(smollm2),
            "-o",
            str(tmp_path / "out"),
            "--tokens",
            "50000",
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    assert "interrupted, nothing was written" in process.stderr.read()  # type: ignore[union-attr]
    assert not (tmp_path / "out").exists()
