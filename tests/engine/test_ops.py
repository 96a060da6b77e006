"""The engine's graphs are made of operations that devices have, and the engine asks for them before anything is
decoded.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from pytriattn import ContextError
from pytriattn._native import core
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CACHE_TYPES
from support.tiny_context import TinyContext

# half-split and neighbouring bands, weights after RoPE, a latent cache with three parts, a hybrid
KINDS = ("qwen3", "llama", "gemma3", "deepseek2-full", "qwen35")


@pytest.mark.parametrize("mode", ["per_layer_head", "fitted"])
@pytest.mark.parametrize("cache", CACHE_TYPES)
@pytest.mark.parametrize("arch", KINDS)
def test_every_device_has_the_operations_of_eviction(
    tiny: Callable[[str], pathlib.Path], arch: str, cache: str, mode: str
) -> None:
    try:
        gguf_info(tiny(arch)).kv_bytes(type_k=cache, type_v=cache)
    except ContextError:
        pytest.skip(f"{cache} does not fit the heads of this model; test_three_bits.py has one that it fits")
    context = TinyContext(tiny(arch), mode=mode, type_k=cache, type_v=cache).context
    assert core.testing.missing_operations(context) == []
    for name in (device.name for device in core.device_list()):
        missing = core.testing.missing_operations(context, name)
        # CUDA reads rows of this type only in whole blocks of 256: the engine then refuses it, and says so
        if cache == "iq4_nl":
            missing = [text for text in missing if not text.startswith("GET_ROWS from iq4_nl")]
        assert missing == [], name
