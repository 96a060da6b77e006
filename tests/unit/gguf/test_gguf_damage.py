"""No damage to a file does harm to its reader: a clear error, or an answer, in little memory."""

from __future__ import annotations

import pathlib
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytriattn import ModelLoadError
from pytriattn.model_info.reader import gguf_info
from support.gguf_bytes import FACTORS, gguf_bytes, model_keys

YARN = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 512}
SLIDING = {"attention__sliding_window": 64, "attention__sliding_window_pattern": [True, False, True, False]}
STATE = {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16, "ssm__group_count": 1}
MODELS = [
    gguf_bytes(
        "llama", model_keys(), FACTORS, bare_keys={"general.name": "a", "tokenizer.ggml.tokens": ["a", "b", "c"]}
    ),
    gguf_bytes("gemma3", model_keys(**SLIDING, rope__freq_base_swa=1e4)),
    gguf_bytes("gemma4", model_keys(**SLIDING, attention__shared_kv_layers=2, attention__key_length_swa=64), FACTORS),
    gguf_bytes("phi3", model_keys(), {f"rope_factors_{which}.weight": np.ones(16) for which in ("short", "long")}),
    gguf_bytes("qwen35", model_keys(**STATE, rope__dimension_sections=[3, 3, 2, 0], nextn_predict_layers=1)),
    gguf_bytes("granitehybrid", model_keys(**STATE | {"attention__head_count_kv": [0, 2, 0, 2]})),
    gguf_bytes(
        "deepseek2",
        model_keys(
            **YARN,
            attention__key_length_mla=96,
            attention__value_length_mla=64,
            rope__scaling__yarn_log_multiplier=0.07,
        ),
    ),
    gguf_bytes("granite_swa", model_keys(**SLIDING, attention__rope_pattern=[True, True, True, False])),
    gguf_bytes("laguna", model_keys(**SLIDING | YARN, rope__dimension_count_swa=16)),
    gguf_bytes("tomorrows-model", model_keys(**SLIDING | YARN)),
    gguf_bytes("llama", model_keys(), FACTORS, bare_keys={"split.no": 0, "split.count": 1}, version=2),
]
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    31,
    64,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
FLOATS = [float("nan"), float("inf"), -1.0, 0.0, 1e-30, 1.0, 1e30]
CHANGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("number"), st.floats(0, 1), st.sampled_from(NUMBERS)),
    st.tuples(st.just("short number"), st.floats(0, 1), st.sampled_from(NUMBERS)),
    st.tuples(st.just("float"), st.floats(0, 1), st.sampled_from(FLOATS)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 16)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.integers(1, 16)),
)
N_CASES = 3000
MEMORY = 16 << 20


def damage(data: bytes, change: tuple[str, float, float]) -> bytes:
    what, where, value = change
    i = int(where * (len(data) - 1)) if data else 0
    match what:
        case "cut":
            return data[:i]
        case "flip":
            return data[:i] + bytes([int(value)]) + data[i + 1 :]
        case "number":
            return data[:i] + struct.pack("<Q", int(value)) + data[i + 8 :]
        case "short number":
            return data[:i] + struct.pack("<I", int(value) & 0xFFFFFFFF) + data[i + 4 :]
        case "float":
            return data[:i] + struct.pack("<f", value) + data[i + 4 :]
        case "drop":
            return data[:i] + data[i + int(value) :]
        case _:
            return data[:i] + bytes(int(value)) + data[i:]


@pytest.mark.parametrize("model", range(len(MODELS)))
def test_undamaged_models_are_read(tmp_path: pathlib.Path, model: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(MODELS[model])
    info = gguf_info(path)
    assert len(info.layers) == 4
    assert info.kv_bytes().total > 0


@pytest.mark.slow
@settings(
    max_examples=N_CASES,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],  # explaining would trace, and its memory would be counted
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(model=st.sampled_from(MODELS), changes=st.lists(CHANGES, min_size=1, max_size=3))
def test_no_damage_does_harm(tmp_path: pathlib.Path, model: bytes, changes: list[tuple[str, float, float]]) -> None:
    path = tmp_path / "model.gguf"
    for change in changes:
        model = damage(model, change)
    path.write_bytes(model)
    tracemalloc.start()
    try:
        info = gguf_info(path)
        for layer in info.layers:
            if layer.rope is not None:
                assert np.isfinite(layer.rope.omega(4096)).all()
                assert np.isfinite(layer.rope.scale)
        info.kv_bytes(4096, 512)
    except ModelLoadError as error:
        assert str(path) in str(error)
    except ValueError as error:  # of kv_bytes: widths that a type does not divide, no context
        assert re.search("ctx|cells|fit heads", str(error))
    finally:
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        tracemalloc.stop()
