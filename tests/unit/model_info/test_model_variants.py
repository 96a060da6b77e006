"""Metadata as other converters may have written them, held against the loaded model: every rule of RoPE and of windows
is needed.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from models.builder import TinyModel
from models.registry import ARCHITECTURES
from pytriattn import ModelLoadError, UnsupportedModelError
from pytriattn._native import core
from pytriattn.model_info.architecture_rules import rules_of
from pytriattn.model_info.layers import LayerKind
from pytriattn.model_info.reader import gguf_info
from support.info_checks import NOT_VIEWED, SETTINGS, check_rope, make_context, slides
from support.typical import TYPICAL, marked

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "yarn with a factor of its own": (
        "qwen3",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 512,
            "rope.scaling.attn_factor": 0.8,
        },
    ),
    "none in spite of a factor": ("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
    "linear by the old key": ("llama", {"rope.scale_linear": 8.0}),
    "yarn that shrinks": (
        "llama",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 0.5, "rope.scaling.original_context_length": 512},
    ),
    "mistral 3's yarn": (
        "mistral3",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 16.0,
            "rope.scaling.yarn_log_multiplier": 1.0,
            "rope.scaling.yarn_beta_fast": 4.0,
            "rope.scaling.yarn_beta_slow": 0.5,
            "rope.scaling.original_context_length": 256,
        },
    ),
    "mistral 4's yarn": (
        "mistral4",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.yarn_log_multiplier": 0.05},
    ),
    "gemma 3 stretched": ("gemma3", {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    "gemma 3 with yarn": (
        "gemma3",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 512},
    ),
    "gpt-oss with another base": ("gpt-oss", {"rope.freq_base_swa": 7000.0}),
    "a pattern by number": ("gemma2", {"attention.sliding_window_pattern": 4}),
    "cohere 2's pattern by number": ("cohere2", {"attention.sliding_window_pattern": 3}),
    "no window": ("gemma3", {"attention.sliding_window": 0}),
    "olmo 2 stretched": ("olmo2-sliding", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama 4 without chunks": ("llama4", {"attention.sliding_window": 0}),
    "smallthinker without a window": ("smallthinker", {"attention.sliding_window": 0}),
    "exaone 4 with a window of no use": ("exaone4", {"attention.sliding_window": 100}),
    "granite without RoPE": ("granite", {"rope.scaling.finetuned": False}),
    "hunyuan with alpha": ("hunyuan-dense", {"rope.scaling.alpha": 1000.0}),
    "llama with LongRoPE": (
        "llama",
        {
            "rope.scaling.type": "longrope",
            "rope.scaling.attn_factor": 1.2,
            "rope.scaling.original_context_length": 512,
            "tensor rope_factors_short": np.linspace(1.0, 2.0, 16),
            "tensor rope_factors_long": np.linspace(2.0, 9.0, 16),
        },
    ),
    "LongRoPE's factors without its type": ("llama", {"rope.scaling.original_context_length": 512}),
    "phi 3 within its context": ("phi3", {"rope.scaling.original_context_length": 1024}),
    "no sizes of heads": ("internlm2", {"attention.key_length": None, "attention.value_length": None}),
    "no RoPE dimensions": ("qwen3", {"rope.dimension_count": None, "rope.freq_base": None}),
    "no window's size": ("gemma2", {"attention.sliding_window": None}),
    "no sliding at all": ("gemma3", {"attention.sliding_window": None}),
    "recurrent layers by list": (
        "qwen35",
        {"attention.recurrent_layers": [1, 0, 1, 0], "full_attention_interval": 4},
    ),
    "spark with less RoPE in sliding layers": ("spark2_5", {"rope.dimension_count_swa": 16}),
    "maple with less RoPE in sliding layers": ("maple", {"rope.dimension_count_swa": 16}),
    "gemma 2 with less RoPE in its first layer": ("gemma2", {"rope.dimension_count_swa": 16}),
    "granite's experts without regard to a key": ("granitemoe", {"rope.scaling.finetuned": False}),
    "hunyuan's text with alpha": ("hunyuan_vl", {"rope.scaling.alpha": 50.0, "rope.dimension_sections": None}),
    "hunyuan's pictures with alpha": ("hunyuan_vl", {"rope.scaling.alpha": 50.0}),
    "mpt with learned positions": ("mpt", {"tensor position_embd": np.ones((2048, 128))}),
    "glm 4 moe with sections": ("glm4moe", {"rope.dimension_sections": [4, 6, 6, 0]}),
    "glm 4 with sections": ("glm4", {"rope.dimension_sections": [2, 3, 3, 0]}),
    "grok's yarn": (
        "grok",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 16.0,
            "rope.scaling.original_context_length": 128,
            "rope.scaling.yarn_ext_factor": 0.5,
            "rope.scaling.yarn_beta_fast": 8.0,
        },
    ),
}

# --- what is changed in every model that has it ---

LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
CHANGES: dict[str, dict[str, Any]] = {
    "stretched": LINEAR,
    "yarn": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 512},
    "another base": {"rope.freq_base": 3e5, "rope.freq_base_swa": None},
    "a base for sliding layers": {"rope.freq_base_swa": 7000.0},
    "both bases": {"rope.freq_base": 3e5, "rope.freq_base_swa": 7000.0, **LINEAR},
    "no pattern": {"attention.sliding_window_pattern": None},
    "another pattern": {"attention.sliding_window_pattern": 3},
    "no window": {"attention.sliding_window": None},
    "another window": {"attention.sliding_window": 300},
}
ABORTS = {("gemma3n", "another pattern"), ("afmoe", "no window")}
"""Files that llama.cpp takes and then does not survive."""


def models_with(rule: str) -> list[str]:
    """List the tiny models whose architecture has a rule of this name."""
    rules = {name: rules_of(make().arch) for name, make in ARCHITECTURES.items() if name not in NOT_VIEWED}
    return [name for name, found in rules.items() if found is not None and getattr(found, rule)]


def change(model: TinyModel, keys: dict[str, Any], path: pathlib.Path) -> None:
    """Write the model with other values of keys; None: without the key."""
    for key, value in keys.items():
        if key.startswith("tensor "):
            model.tensor(f"{key.removeprefix('tensor ')}.weight", value)
        elif value is not None:
            model.keys({key: value})
        else:
            model._keys.pop(key, None)
    model.save(path)


@pytest.mark.parametrize(
    ("name", "what"),
    marked(
        [(name, what) for name in models_with("sliding") for what in CHANGES if (name, what) not in ABORTS],
        lambda change: change[0] in TYPICAL,
    ),
)
def test_changes_of_sliding_models(tmp_path: pathlib.Path, name: str, what: str) -> None:
    path = tmp_path / "model.gguf"
    change(ARCHITECTURES[name](), CHANGES[what], path)
    compare(path, 1024)


@pytest.mark.parametrize("name", marked(models_with("factors")))
def test_factors_are_used_where_they_are(tmp_path: pathlib.Path, name: str) -> None:
    model, path = ARCHITECTURES[name](), tmp_path / "model.gguf"
    n_factors = max(model.n_rot, int(model._keys.get("rope.dimension_count_swa", 0))) // 2
    change(model, {"tensor rope_freqs": np.linspace(1.0, 4.0, n_factors)}, path)
    compare(path, 1024)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(tmp_path: pathlib.Path, variant: str) -> None:
    name, keys = VARIANTS[variant]
    path = tmp_path / "model.gguf"
    change(ARCHITECTURES[name](), keys, path)
    compare(path, 1024)


def compare(path: pathlib.Path, n_ctx: int) -> None:
    """Hold layers, RoPE and bytes against the engine's, if llama.cpp takes the file."""
    try:
        model = core.Model(str(path))
    except ModelLoadError:
        return
    info = gguf_info(path)
    assert info.has_learned_positions == model.has_learned_positions
    context = make_context(path, {"ctx": n_ctx})
    try:
        nodes = context.attention()
    except UnsupportedModelError:
        assert not info.layers_of(LayerKind.FULL)
        return
    for node in nodes:
        layer = info.layers[node.layer]
        assert (layer.owner, slides(info, layer)) == (node.owner, node.sliding)
        assert (layer.rope is None) == (node.operator is None)
        if layer.rope is not None:
            check_rope(layer.rope, node, n_ctx)
    for values in SETTINGS[:1] if info.has_learned_positions else (SETTINGS[0], SETTINGS[5]):
        counters = make_context(path, values).counters()
        assert info.kv_bytes(**values).total == sum(
            getattr(counters, f"{part}_bytes") for part in ("k", "v", "recurrent")
        )
