"""Too little memory is a MemoryError that says how much was wanted and what to change."""

from __future__ import annotations

import sys

import pytest

from pytriattn import CacheMemoryError, ContextError, Llama, ModelLoadError, ModelMemoryError
from pytriattn.options.cache import CacheOptions
from pytriattn.session.memory_errors import telling_cache_memory
from support.limited import run_limited
from support.tiny_context import Tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")]

TRY = """
    limit_memory(int(sys.argv[2]))
    try:
        Llama(sys.argv[1], n_threads=1, **eval(sys.argv[3]))
    except MemoryError as error:
        print(type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    llm = Llama(sys.argv[1], n_ctx=64, n_threads=1)
    llm.eval([3, 4, 5])
    print(llm.n_tokens)
"""


def test_a_cache_that_is_too_large(tiny: Tiny) -> None:
    said = run_limited(TRY, tiny("llama"), 400 << 20, {"n_ctx": 4_000_000})
    assert said.startswith("CacheMemoryError there is not enough memory for a cache of ")
    assert "GiB (n_ctx=4000000, type_k='f16', type_v='f16')" in said
    assert "lower n_ctx, or set a budget" in said
    assert said.endswith("\n3\n")  # the process lives on, and the next one fits


def test_a_budget_that_is_too_large(tiny: Tiny) -> None:
    settings = {"n_ctx": 9_000_000, "budget": 4_000_000, "mode": "recent"}
    said = run_limited(TRY, tiny("llama"), 400 << 20, settings)
    assert said.startswith("CacheMemoryError")
    assert "budget=4000000" in said and "lower budget or n_batch" in said


def test_a_model_that_is_too_large(smollm2: object) -> None:
    said = run_limited(TRY.replace("[3, 4, 5]", "[3, 4, 5]"), smollm2, 20 << 20, {"n_ctx": 64})
    assert said.startswith("ModelMemoryError there is not enough memory for the model ")
    assert "MiB; use a smaller model" in said


def test_other_errors_stay_what_they_are(tiny: Tiny) -> None:
    assert issubclass(CacheMemoryError, (ContextError,)) and issubclass(CacheMemoryError, MemoryError)
    assert issubclass(ModelMemoryError, (ModelLoadError,)) and issubclass(ModelMemoryError, MemoryError)
    with pytest.raises(ContextError, match="mine") as found, telling_cache_memory(tiny("llama"), CacheOptions()):
        raise ContextError("mine")
    assert not isinstance(found.value, MemoryError)
    with pytest.raises(CacheMemoryError), telling_cache_memory(tiny("llama"), CacheOptions(n_ctx=64)):
        raise MemoryError("std::bad_alloc")
    Llama(tiny("llama"), n_ctx=64).close()
