"""Caches below four bits: kv3, and q3_K and q2_K where heads are multiples of 256."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.builder import TinyModel
from models.dense import pre_norm
from pytriattn import ContextError, Llama, StateError
from pytriattn._native import core
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CACHE_TYPES
from support.architecture_checks import misplaced_rows, snapshot, stored_keys
from support.rpc_server import RpcServer
from support.tiny_context import Tiny, TinyContext, Tokens

# the largest relative squared error on real rows that is taken for this type: rows of a tiny model are nearly normal
ERRORS = {"q8_0": 1e-4, "q4_0": 0.012, "kv3": 0.04, "q3_K": 0.04, "q2_K": 0.16}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a tiny model with heads of 256."""
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    pre_norm(TinyModel("qwen3", n_layer=2, head_dim=256, freq_base=1e6), qk_norm=True).save(path)
    return path


def path_of(heads: int, tiny: Tiny, wide: pathlib.Path) -> pathlib.Path:
    return wide if heads == 256 else tiny("qwen3")


@pytest.mark.parametrize(
    ("heads", "types"),
    [
        (64, ("kv3", "kv3")),
        (64, ("q8_0", "kv3")),
        (64, ("kv3", "f16")),
        (256, ("kv3", "kv3")),
        (256, ("q3_K", "q3_K")),
        (256, ("q2_K", "q2_K")),
        (256, ("q8_0", "q3_K")),
        (256, ("q3_K", "kv3")),
    ],
)
def test_evictions_move_rows_bit_for_bit(
    tiny: Tiny, wide: pathlib.Path, random_tokens: Tokens, heads: int, types: tuple[str, str]
) -> None:
    context = TinyContext(path_of(heads, tiny, wide), budget=96, type_k=types[0], type_v=types[1]).context
    context.read(0, random_tokens[:120], 0)
    before, slot_of = snapshot(context, types), {cell.position: cell.slot for cell in core.testing.cells(context)}
    context.evict()
    assert misplaced_rows(context, types, before, slot_of) == 0
    kept = {
        tuple(context.kept_positions(0, layer.layer, head).tolist())
        for layer in context.layers
        for head in range(layer.n_head_kv)
    }
    assert len(kept) > 1  # heads really keep different keys


@pytest.mark.parametrize("type_v", CACHE_TYPES)
@pytest.mark.parametrize("type_k", ["f16", "kv3", "q3_K", "q2_K"])
def test_bytes_and_operations_with_heads_that_all_types_fit(wide: pathlib.Path, type_k: str, type_v: str) -> None:
    context = TinyContext(wide, budget=96, type_k=type_k, type_v=type_v).context
    assert core.testing.missing_operations(context) == []
    expected = gguf_info(wide).kv_bytes(4096, 96, interval=32, type_k=type_k, type_v=type_v)
    counters = context.counters()
    assert expected.total == counters.k_bytes + counters.v_bytes
    if type_k == type_v == "kv3":
        full = gguf_info(wide).kv_bytes(4096, 96, interval=32)
        assert expected.total / full.total == 25 / 128 < 0.2


@pytest.mark.parametrize(
    ("heads", "cache"), [(64, "kv3"), (256, "kv3"), (256, "q3_K"), (256, "q2_K"), (64, "q8_0"), (64, "q4_0")]
)
def test_stored_keys_are_those_of_f32_but_for_the_types_error(
    tiny: Tiny, wide: pathlib.Path, random_tokens: Tokens, heads: int, cache: str
) -> None:
    """In the first layer, where nothing that was rounded has gone in; llama.cpp's rotation has been applied."""
    keys = {}
    for kind in ("f32", cache):
        context = TinyContext(path_of(heads, tiny, wide), type_k=kind, type_v="f32", mode="recent").context
        context.read(0, random_tokens[:90], 0)
        if kind != "f32":
            assert core.testing.k_rotation(context) is not None
        first = context.layers[0]
        layer = SimpleNamespace(layer=first.layer, n_head_kv=first.n_head_kv, head_dim=first.head_dim_k)
        keys[kind] = stored_keys(context, layer, kind, hadamard=kind != "f32").astype(np.float64)
    error = ((keys[cache] - keys["f32"]) ** 2).mean() / (keys["f32"] ** 2).mean()
    assert ERRORS[cache] / 20 < error < ERRORS[cache]


def test_logits_hardly_depend_on_the_type(tiny: Tiny, random_tokens: Tokens) -> None:
    """Three bits are worse than four and better than garbage."""
    logits = {}
    for cache in ("f32", "q8_0", "q4_0", "kv3"):
        context = TinyContext(tiny("qwen3"), budget=None, type_k=cache, type_v=cache).context
        context.read(0, random_tokens[:200], 0)
        logits[cache] = context.logits().copy()
    distance = {cache: float(np.square(found - logits["f32"]).mean()) for cache, found in logits.items()}
    spread = float(logits["f32"].var())
    assert distance["q8_0"] < distance["q4_0"] < distance["kv3"] < 0.08 * spread


@pytest.mark.parametrize(
    ("arch", "cache", "message"),
    [
        ("llama", "kv3", r"type_k='kv3' does not fit heads of 32 in layer 0: kv3 stores blocks of 64 values, which 32"),
        ("qwen3", "q3_K", r"q3_K stores blocks of 256 values, which 64 .*; use q8_0 or q4_0 or .* or kv3$"),
        ("qwen3", "q2_K", r"q2_K stores blocks of 256"),
    ],
)
@pytest.mark.parametrize("budget", [None, 128])
def test_heads_that_do_not_fit_are_refused_before_the_model_is_loaded(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, arch: str, cache: str, message: str, budget: int | None
) -> None:
    monkeypatch.setattr(core, "Model", None)
    mode = None if budget is None else "recent"
    with pytest.raises(ContextError, match=message):
        Llama(tiny(arch), type_k=cache, n_ctx=512, budget=budget, mode=mode)


def test_v_needs_flash_attention(tiny: Tiny) -> None:
    with pytest.raises(ContextError, match="type_v='kv3' needs flash attention; use flash_attn=True or type_v='f16'"):
        Llama(tiny("qwen3"), type_v="kv3", flash_attn=False, n_ctx=512)


def test_a_device_that_cannot_store_a_type_is_refused() -> None:
    """No cache can have iq3_xxs (18): no device stores rows of it. The CPU stores all that caches can have."""
    for kind in (0, 1, 8, 10, 11, 63):
        core.testing.check_cache_device("CPU", kind)
    with pytest.raises(
        ContextError, match=r"type_k='iq3_xxs' cannot be stored on CPU \(.*\); use one of f32, .*, kv3, or"
    ):
        core.testing.check_cache_device("CPU", 18)


def test_numbers_of_types(tiny: Tiny) -> None:
    """The number, as llama-cpp-python's interface takes it, is the name."""
    with (
        Llama(tiny("qwen3"), type_k=63, type_v=63, n_ctx=512) as numbers,
        Llama(tiny("qwen3"), type_k="kv3", type_v="kv3", n_ctx=512) as names,
    ):
        assert numbers.kv_stats()["kv_bytes"] == names.kv_stats()["kv_bytes"] == 512 * 3 * 2 * 2 * 25


@pytest.mark.parametrize("types", [("kv3", "kv3"), ("q8_0", "kv3")])
def test_states_go_on_where_they_were_saved(
    tiny: Tiny, random_tokens: Tokens, tmp_path: pathlib.Path, types: tuple[str, str]
) -> None:
    settings: dict[str, Any] = {"n_ctx": 1024, "budget": 128, "interval": 32, "mode": "recent"}
    text = [int(token) for token in random_tokens[:260]]
    with (
        Llama(tiny("qwen3"), type_k=types[0], type_v=types[1], **settings) as first,
        Llama(tiny("qwen3"), type_k=types[0], type_v=types[1], **settings) as second,
        Llama(tiny("qwen3"), type_k="q4_0", type_v=types[1], **settings) as other,
    ):
        first.eval(text[:200])
        first.save_state(tmp_path / "state")
        second.load_state(tmp_path / "state")
        for llm in (first, second):
            llm.eval(text[200:])
        np.testing.assert_array_equal(second._open_context().logits(), first._open_context().logits())
        with pytest.raises(StateError, match=f"type_k was '{types[0]}' and is 'q4_0'"):
            other.load_state(tmp_path / "state")


@pytest.mark.slow
@pytest.mark.parametrize("types", [("kv3", "kv3"), ("q8_0", "kv3")])
def test_a_cache_on_a_server(tiny: Tiny, random_tokens: Tokens, types: tuple[str, str]) -> None:
    settings: dict[str, Any] = {"n_ctx": 1024, "budget": 128, "interval": 32, "mode": "recent"}
    settings |= {"type_k": types[0], "type_v": types[1]}
    text = [int(token) for token in random_tokens[:300]]
    with (
        RpcServer() as server,
        Llama(tiny("qwen3"), **settings) as here,
        Llama(tiny("qwen3"), rpc_servers=[server.address], **settings) as there,
    ):
        np.testing.assert_allclose(there.logprobs(text), here.logprobs(text), atol=1e-3)
        assert there.kv_stats()["evictions"] == here.kv_stats()["evictions"] > 0
        assert there.kv_stats()["kv_bytes"] == here.kv_stats()["kv_bytes"]
