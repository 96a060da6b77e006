"""Models, statistics and texts that the tests share. Real models are fetched once into models/; tiny ones are written here."""

from __future__ import annotations

import pathlib
import pydoc_data.topics
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import fetch_models  # noqa: E402
from tiny_models import make_tiny_model  # noqa: E402

from pytriattn import Llama, TriAttentionStats, calibrate  # noqa: E402
from pytriattn._native import backends, core  # noqa: E402
from pytriattn.stats.bundled import bundled_text  # noqa: E402

# As `Llama` does: where a GPU's plug-in is installed, the tests that use `core` directly run on it too.
backends.require()

# A shell starts jobs in the background with SIGINT ignored; tests of Ctrl-C, here and in child processes, must get it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Tokens = npt.NDArray[np.int32]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache folder out of the tests, but share one between them: calibration takes seconds."""
    monkeypatch.setenv("PYTRIATTN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
    return fetch_models.fetch("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> pathlib.Path:
    return fetch_models.fetch("gemma3")


@pytest.fixture(scope="session")
def smollm2_stats(smollm2: pathlib.Path) -> TriAttentionStats:
    return calibrate(smollm2, bundled_text(), n_tokens=256)


@pytest.fixture(scope="session")
def gemma3_stats(gemma3: pathlib.Path) -> TriAttentionStats:
    return calibrate(gemma3, bundled_text(), n_tokens=256)


@pytest.fixture(scope="session")
def long_text() -> str:
    """Prose of some 100,000 characters that every Python brings along."""
    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name] for name in sorted(topics))[:100_000]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Return the path of a tiny random model of an architecture."""
    folder = tmp_path_factory.mktemp("tiny")
    return lambda arch: make_tiny_model(arch, folder)


@pytest.fixture(scope="session")
def random_tokens() -> Tokens:
    """Tokens that every tiny model has; the second half repeats the first."""
    first = np.random.default_rng(7).integers(0, 250, 1000, dtype=np.int32)
    return np.concatenate([first, first])


class TinyContext:
    """A core context over a tiny model, calibrated on random tokens if its mode needs statistics."""

    def __init__(
        self,
        path: pathlib.Path,
        *,
        mode: str = "per_layer_head",
        budget: int | None = 96,
        interval: int = 32,
        window: int = 16,
        seed: int = 0,
        **options: object,
    ) -> None:
        self.model = core.Model(str(path))
        eviction = stats = None
        if budget is not None:
            eviction = core.EvictionConfig(mode=mode, budget=budget, interval=interval, window=window, seed=seed)
            if eviction.needs_scores:
                tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
                stats = core.calibrate(self.model, tokens, n_ctx=256, n_ubatch=128, n_threads=2)
        settings: dict[str, object] = {"n_ctx": 4096, "n_threads": 2, **options}
        self.context = core.Context(self.model, core.DecoderParams(eviction=eviction, **settings), stats)


@pytest.fixture(scope="session")
def smollm2_core(smollm2: pathlib.Path) -> Iterator[Llama]:
    """A loaded full-cache Llama that tests may read into, but not close."""
    with Llama(smollm2, n_ctx=2048, seed=1) as llm:
        yield llm
