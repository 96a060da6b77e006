"""The bytes that are told before a model is loaded are those that the engine allocates."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.registry import make_tiny_model
from pytriattn import Llama
from pytriattn._native import core
from pytriattn.errors import ContextError
from pytriattn.gguf.types import block_size
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CACHE_TYPES
from support.gguf_bytes import gguf_bytes, model_keys
from support.info_checks import NAMES, NOT_VIEWED, SETTINGS, make_context, path_of
from support.typical import marked


@pytest.mark.parametrize("name", marked(name for name in NAMES if name not in NOT_VIEWED))
def test_bytes_are_what_the_engine_allocates(tiny_folder: pathlib.Path, name: str) -> None:
    path = path_of(name, tiny_folder)
    info = gguf_info(path)
    assert info.is_exact
    n_compared = 0
    for combination in SETTINGS:
        values = dict(combination)
        if info.has_learned_positions:
            values["ctx"] = min(values["ctx"], info.n_ctx_train)
        try:
            expected = info.kv_bytes(**values)
        except ValueError:
            with pytest.raises(ValueError, match="."):
                make_context(path, values)
            continue
        counters = make_context(path, values).counters()
        total = counters.k_bytes + counters.v_bytes
        assert expected.full == total - counters.sliding_bytes, values
        assert expected.sliding == counters.sliding_bytes, values
        assert expected.recurrent == counters.recurrent_bytes, values
        assert expected.cells_full * values.get("parallel", 1) == counters.cells_allocated, values
        assert expected.total == total + counters.recurrent_bytes
        n_compared += 1
    assert n_compared >= len(SETTINGS) - (3 if not info.flash_attention else 0)


@pytest.mark.parametrize("type_k", CACHE_TYPES)
@pytest.mark.parametrize("type_v", CACHE_TYPES)
def test_bytes_of_each_pair_of_types(tiny_folder: pathlib.Path, type_k: str, type_v: str) -> None:
    path = path_of("mimo2", tiny_folder)  # keys of 96, values of 64
    values = {"ctx": 4096, "budget": 200, "type_k": type_k, "type_v": type_v}
    if 96 % block_size(type_k) or 64 % block_size(type_v):
        with pytest.raises(ContextError, match="does not fit heads of"):
            gguf_info(path).kv_bytes(**values)
        with pytest.raises(ContextError):
            make_context(path, values)
        return
    expected, counters = gguf_info(path).kv_bytes(**values), make_context(path, values).counters()
    assert expected.total == counters.k_bytes + counters.v_bytes
    assert expected.sliding == counters.sliding_bytes


@pytest.mark.parametrize("name", ["llama", "gemma2", "llama4", "qwen35", "smallthinker"])
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ctx=st.integers(1, 20_000),
    budget=st.none() | st.integers(32, 9000),
    interval=st.integers(1, 1000),
    n_batch=st.integers(1, 4096),
    n_ubatch=st.integers(1, 2048),
    parallel=st.integers(1, 3),
    prefill=st.sampled_from(["chunked", "full"]),
)
def test_the_rule_of_cells_is_the_engines(tiny_folder: pathlib.Path, name: str, **values: Any) -> None:
    path = path_of(name, tiny_folder)
    expected, counters = gguf_info(path).kv_bytes(**values), make_context(path, values).counters()
    assert expected.cells_full * values["parallel"] == counters.cells_allocated
    assert expected.total == counters.k_bytes + counters.v_bytes + counters.recurrent_bytes


@pytest.mark.slow
def test_llama_allocates_what_is_told(smollm2: pathlib.Path, gemma3: pathlib.Path) -> None:
    for path in (smollm2, gemma3):
        with Llama(path, n_ctx=6000, budget=500, interval=64, mode="recent", type_k="q8_0", type_v="q8_0") as llm:
            expected = gguf_info(path).kv_bytes(6000, 500, interval=64, type_k="q8_0", type_v="q8_0")
            assert expected.total == llm.kv_stats()["kv_bytes"]
        with Llama(path) as llm:
            assert gguf_info(path).kv_bytes().total == llm.kv_stats()["kv_bytes"]


def test_without_a_budget_bytes_are_the_plain_product(smollm2: pathlib.Path) -> None:
    info = gguf_info(smollm2)
    for ctx in (256, 8192, 131072):
        assert info.kv_bytes(ctx).full == info.kv_bytes(ctx).total == 2 * 2 * 30 * 3 * 64 * ctx
        assert info.kv_bytes(ctx, type_k="q8_0", type_v="q4_0").total == 30 * ctx * 6 * (34 + 18)
        assert info.kv_bytes(ctx, parallel=3).total == 3 * info.kv_bytes(ctx).total
    assert info.kv_bytes() == info.kv_bytes(8192)
    assert info.kv_bytes(300).cells_full == 512  # llama.cpp rounds up
    # under a budget the context does not matter
    assert info.kv_bytes(1 << 20, 4096) == info.kv_bytes(1 << 24, 4096)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ctx": -1}, "ctx is -1"),
        ({"budget": 0}, "budget is 0"),
        ({"interval": 0}, "interval is 0"),
        ({"n_batch": 0}, "n_batch is 0"),
        ({"n_ubatch": 0}, "n_ubatch is 0"),
        ({"parallel": 0}, "parallel is 0"),
        ({"type_k": "q4_k"}, "type_k is 'q4_k', it must be one of f32, f16"),
        ({"type_v": "F16"}, "type_v is 'F16'"),
        ({"prefill": "all"}, "prefill is 'all'"),
        ({"type_v": "q8_0", "flash_attn": False}, "type_v='q8_0' needs flash attention; use type_v='f16'"),
        ({"ctx": 1 << 31, "parallel": 8}, "more than llama.cpp can count"),
    ],
)
def test_settings_that_make_no_sense(smollm2: pathlib.Path, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gguf_info(smollm2).kv_bytes(**values)


def test_types_that_do_not_fit(tiny_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    latent = gguf_info(make_tiny_model("deepseek2", tiny_folder))
    with pytest.raises(ValueError, match="latent attention stores one row for both"):
        latent.kv_bytes(type_k="q8_0")
    with pytest.raises(ValueError, match="which grok models cannot have"):
        gguf_info(make_tiny_model("grok", tiny_folder)).kv_bytes(type_k="q8_0", type_v="q8_0")
    path = tmp_path / "odd.gguf"
    path.write_bytes(gguf_bytes("llama", model_keys(attention__key_length=40, rope__dimension_count=40)))
    with pytest.raises(ValueError, match="type_k='q8_0' does not fit heads of 40 in layer 0"):
        gguf_info(path).kv_bytes(type_k="q8_0")


# --- caches that the engine does not look into: what llama.cpp itself says ---


def logged_mib(path: pathlib.Path, values: dict[str, Any]) -> list[float]:
    core.take_log()
    context = make_context(path, values)
    text = "".join(line.text.decode() for line in core.take_log())
    context.close()
    return [float(size) for size in re.findall(r"(?:KV|RS) buffer size = +([\d.]+) MiB", text)]


@pytest.mark.parametrize("values", [v for v in SETTINGS if "budget" not in v])
@pytest.mark.parametrize("name", sorted(NOT_VIEWED))
def test_bytes_are_what_llama_cpp_says(tiny_folder: pathlib.Path, name: str, values: dict[str, Any]) -> None:
    path = path_of(name, tiny_folder)
    info, sizes = gguf_info(path), logged_mib(path, values)
    assert info.is_exact
    assert len(sizes) >= 2
    # each size is rounded to two digits
    assert abs(info.kv_bytes(**values).total / 2**20 - sum(sizes)) <= 0.005 * len(sizes) + 1e-6
    if name == "lfm2-sliding":
        assert info.kv_bytes(**values).full == 0


def test_a_cache_of_another_kind_is_said_to_be_inexact(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes("glm-dsa", model_keys()))
    info = gguf_info(path)
    assert not info.is_exact
    assert info.kv_bytes(4096).full > 0
