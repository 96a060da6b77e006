"""Models, statistics and texts that the tests share. Real ones are fetched once into models/; tiny ones are written
here.
"""

from __future__ import annotations

import pathlib
import pydoc_data.topics
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from models import real
from models.registry import make_tiny_model
from pytriattn import Llama, TriAttentionStats, calibrate
from pytriattn._native import backends
from pytriattn.stats.bundled import bundled_text
from support.sanitized import skip_unfit
from support.tiny_context import Tiny, Tokens

# As `Llama` does: where a GPU's plug-in is installed, the tests that use `core` directly run on it too.
backends.require()

# A shell starts jobs in the background with SIGINT ignored; tests of Ctrl-C, here and in child processes, must get it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_unfit(items)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache folder out of the tests, but share one between them: calibration takes seconds."""
    monkeypatch.setenv("PYTRIATTN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
    return real.fetch("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> pathlib.Path:
    return real.fetch("gemma3")


@pytest.fixture(scope="session")
def smollm2_stats(smollm2: pathlib.Path) -> TriAttentionStats:
    return calibrate(smollm2, bundled_text(), n_tokens=256)


@pytest.fixture(scope="session")
def sidecar(smollm2_stats: TriAttentionStats, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a file with the statistics of SmolLM2."""
    path = tmp_path_factory.mktemp("sidecar") / "smollm2.triattention"
    smollm2_stats.save(path)
    return path


@pytest.fixture(scope="session")
def gemma3_stats(gemma3: pathlib.Path) -> TriAttentionStats:
    return calibrate(gemma3, bundled_text(), n_tokens=256)


@pytest.fixture(scope="session")
def long_text() -> str:
    """Prose of some 100,000 characters that every Python brings along."""
    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name] for name in sorted(topics))[:100_000]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the folder in which each tiny model is written once."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: pathlib.Path) -> Tiny:
    """Return the path of a tiny random model of an architecture."""
    return lambda arch: make_tiny_model(arch, tiny_folder)


@pytest.fixture(scope="session")
def random_tokens() -> Tokens:
    """Tokens that every tiny model has; the second half repeats the first."""
    first = np.random.default_rng(7).integers(0, 250, 1000, dtype=np.int32)
    return np.concatenate([first, first])


@pytest.fixture(scope="session")
def smollm2_core(smollm2: pathlib.Path) -> Iterator[Llama]:
    """A loaded full-cache Llama that tests may read into, but not close."""
    with Llama(smollm2, n_ctx=2048, seed=1) as llm:
        yield llm
