"""What metadata tell is what the engine finds after loading: the layers and RoPE of every architecture."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from models.real import fetch
from models.registry import make_tiny_model
from pytriattn import ModelLoadError
from pytriattn._native import core
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerKind
from pytriattn.model_info.reader import gguf_info
from support.gguf_bytes import gguf_bytes, model_keys
from support.info_checks import NAMES, NOT_VIEWED, check_rope, make_context, path_of, slides
from support.typical import marked

# --- every architecture ---


@pytest.mark.parametrize("name", marked(NAMES))
def test_the_model_is_told(tiny_folder: pathlib.Path, name: str) -> None:
    path = path_of(name, tiny_folder)
    info, model = gguf_info(path), core.Model(str(path))
    assert info.file_bytes == path.stat().st_size
    assert info.architecture == model.metadata["general.architecture"]
    assert info.name == model.metadata.get("general.name", "")
    assert info.n_layer == model.n_layer
    assert info.n_vocab == model.n_vocab
    assert info.n_ctx_train == model.n_ctx_train
    assert info.cell_window == model.n_swa
    assert info.has_learned_positions == model.has_learned_positions
    assert info.has_alibi == (name in ("bloom", "refact", "mpt", "baichuan-alibi"))
    assert info.facts["rules"].value is True
    assert info.facts["architecture"].source == "key general.architecture"
    assert [layer.index for layer in info.layers] == list(range(len(info.layers)))
    mtp = info.layers_of(LayerKind.MTP)
    assert [layer.index for layer in mtp] == list(range(info.n_layer, len(info.layers)))


@pytest.mark.parametrize("n_ctx", [512, 2048])
@pytest.mark.parametrize("name", marked(name for name in NAMES if name not in NOT_VIEWED))
def test_layers_and_rope_are_what_the_engine_finds(tiny_folder: pathlib.Path, name: str, n_ctx: int) -> None:
    path = path_of(name, tiny_folder)
    info = gguf_info(path)
    nodes = {node.layer: node for node in make_context(path, {"ctx": n_ctx}).attention()}
    layers = {layer.index: layer for layer in info.layers if layer.owner >= 0 and layer.kind is not LayerKind.MTP}
    assert sorted(nodes) == sorted(layers)
    for i, node in nodes.items():
        layer = layers[i]
        assert (layer.owner, slides(info, layer)) == (node.owner, node.sliding)
        assert (layer.kind is LayerKind.SHARED) == (node.owner != i)
        found = (node.n_head, node.n_head_kv, node.head_dim, node.head_dim_v)
        assert (layer.n_head, layer.n_head_kv, layer.head_dim_k, layer.head_dim_v) == found
        assert (layer.rope is None) == (node.operator is None)
        if layer.rope is not None:
            check_rope(layer.rope, node, n_ctx)


def test_kinds_of_layers(tiny_folder: pathlib.Path) -> None:
    def kinds(name: str) -> str:
        letters = {"full": "F", "sliding": "S", "shared": "s", "recurrent": "R", "none": "-", "mtp": "M"}
        return "".join(letters[layer.kind.value] for layer in gguf_info(make_tiny_model(name, tiny_folder)).layers)

    assert kinds("llama") == "FFF"
    assert kinds("gemma4") == "SFSFss"
    assert kinds("nemotron_h_moe") == "RF-RF-M"
    assert kinds("qwen35-mtp") == "RFRFM"
    assert kinds("lfm2-sliding") == "RSRS"
    assert kinds("deci") == "F-F-F"
    assert kinds("falcon-h1") == "FF"
    assert gguf_info(make_tiny_model("falcon-h1", tiny_folder)).layers[0].state_size > 0


def test_sources_of_facts(tiny_folder: pathlib.Path) -> None:
    facts = gguf_info(make_tiny_model("smollm3", tiny_folder)).facts
    assert facts["rope_freq_base"].source == "key smollm3.rope.freq_base"
    assert facts["rope_mode"].source == "rule of smollm3 (src/llama-model.cpp)"
    assert facts["rope_scaling"].source == "default of llama.cpp (src/llama-model.cpp)"
    assert facts["layers_without_rope"].value == (3,)
    assert facts["layers_without_rope"].source == "rule of smollm3 (src/models/smollm3.cpp)"
    facts = gguf_info(make_tiny_model("llama-ropefreqs", tiny_folder)).facts
    assert facts["rope_factors"].source == "tensor rope_freqs.weight"
    facts = gguf_info(make_tiny_model("gemma3n", tiny_folder)).facts
    assert facts["shared_layers"].value == (20, 21)
    assert "src/models/gemma3n.cpp" in facts["shared_layers"].source
    facts = gguf_info(make_tiny_model("gemma4", tiny_folder)).facts
    assert facts["shared_layers"].source == "key gemma4.attention.shared_kv_layers"
    assert facts["sliding_layers"].source == "key gemma4.attention.sliding_window_pattern"
    facts = gguf_info(fetch("gemma3")).facts
    assert facts["sliding_layers"].source == "rule of gemma3 (src/models/gemma3.cpp)"


# --- files that are no usual models ---


def info_of(tmp_path: pathlib.Path, architecture: str, tensors: dict | None = None, **keys: Any) -> ModelInfo:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(architecture, model_keys(**keys), tensors))
    return gguf_info(path)


def test_unknown_architectures_tell_what_keys_say(tmp_path: pathlib.Path) -> None:
    pattern = [True, False, True, False]
    info = info_of(
        tmp_path,
        "tomorrow",
        attention__sliding_window=100,
        attention__sliding_window_pattern=pattern,
        rope__freq_base=5e5,
    )
    assert info.facts["rules"].value is False
    assert "tomorrow" in info.facts["rules"].source
    assert not info.is_exact
    assert [layer.kind.value for layer in info.layers] == ["sliding", "full"] * 2
    assert info.layers[1].rope is not None
    assert info.layers[1].rope.freq_base == 5e5
    assert "guess" in info.facts["rope_mode"].source
    assert info.kv_bytes(1024).full == 2 * 1024 * 2 * 2 * 64
    (tmp_path / "bare.gguf").write_bytes(gguf_bytes("adapter", {}))
    bare = gguf_info(tmp_path / "bare.gguf")
    assert (bare.n_layer, bare.layers) == (0, ())
    with pytest.raises(ValueError, match="give ctx"):
        bare.kv_bytes()
    assert bare.kv_bytes(512).total == 0


def test_what_others_forbid_unknown_architectures_may(tmp_path: pathlib.Path) -> None:
    info = info_of(tmp_path, "tomorrow", rope__dimension_count=64, attention__head_count_kv=[1, 2, 3, 4, 5])
    assert [layer.n_head_kv for layer in info.layers] == [1, 2, 3, 4]
    assert [layer.rope for layer in info.layers] == [None] * 4
    assert info.facts["rope_mode"].value == "unknown"
    assert "RoPE would turn 64 of 32" in info.facts["rope_mode"].source
    info = info_of(tmp_path, "tomorrow", rope__scaling__type="llama5", attention__head_count_kv=[1])
    assert [layer.kind.value for layer in info.layers] == ["full", "none", "none", "none"]
    assert "llama5" in info.facts["rope_mode"].source


def test_states_of_unknown_architectures(tmp_path: pathlib.Path) -> None:
    info = info_of(
        tmp_path,
        "tomorrow",
        attention__head_count_kv=[0, 2, 0, 2],
        ssm__conv_kernel=4,
        ssm__inner_size=128,
        ssm__state_size=16,
        ssm__group_count=1,
    )
    assert [layer.kind.value for layer in info.layers] == ["recurrent", "full"] * 2
    assert info.layers[0].state_size == 3 * (128 + 32) + 16 * 128


@pytest.mark.parametrize(
    ("architecture", "keys", "message"),
    [
        ("llama", {"block_count": 513}, "block_count is 513, it must be a whole number up to 512"),
        ("llama", {"attention__head_count": "four"}, "head_count is 'four', it must be a whole number"),
        ("llama", {"attention__head_count_kv": [2, 2]}, r"head_count_kv is \[2, 2\], it must be 4 whole numbers"),
        ("llama", {"attention__head_count_kv": ["a", "b"]}, "is an array of 2 strings"),
        ("llama", {"rope__freq_base": float("nan")}, "freq_base is nan, it must be a number"),
        ("llama", {"rope__freq_base": 0.5}, "RoPE has the base 0.5"),
        ("llama", {"rope__scaling__type": "other"}, "scaling.type is 'other', it must be one of none, linear"),
        ("llama", {"rope__scaling__type": 3}, "scaling.type is 3, it must be a string"),
        ("llama", {"rope__dimension_count": 64}, "RoPE would turn 64 of 32 dimensions"),
        ("llama", {"rope__dimension_count": 3}, "RoPE would turn 3 of 32 dimensions"),
        ("llama", {"nextn_predict_layers": 9}, "nextn_predict_layers is 9, it must be at most"),
        ("granite", {"rope__scaling__finetuned": 7}, "finetuned is 7, it must be true or false"),
        ("qwen2vl", {}, "sections of M-RoPE are missing"),
        ("gemma4", {"attention__sliding_window": 64}, "lacks the key gemma4.attention.sliding_window_pattern"),
        ("gemma4", {"attention__shared_kv_layers": 3}, "shared_kv_layers is 3"),
        ("nanbeige", {"num_loops": 200}, "num_loops is 200"),
        ("qwen35", {"full_attention_interval": 0, "rope__dimension_sections": [1, 1, 1, 0]}, "interval is 0"),
        (
            "llama",
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 1e-6},
            "YaRN stretches the context by 1e-06",
        ),
    ],
)
def test_keys_that_make_no_sense(tmp_path: pathlib.Path, architecture: str, keys: dict, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        info_of(tmp_path, architecture, **keys)
    assert "model.gguf" in str(caught.value)


def test_states_of_models_without_attention(tmp_path: pathlib.Path) -> None:
    mamba = {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16, "attention__head_count": 0}
    conv, state = 3 * 128, 16 * 128
    for architecture, keys, size in (
        ("mamba", mamba | {"ssm__group_count": 2}, conv + state),
        ("mamba2", mamba | {"ssm__group_count": 2}, conv + 3 * 2 * 2 * 16 + state),
        ("rwkv6", {"wkv__head_size": 32, "attention__head_count": 0}, (2 + 32) * 64),
        ("arwkv7", {"wkv__head_size": 32, "token_shift_count": 1}, (1 + 32) * 64),
    ):
        info = info_of(tmp_path, architecture, **keys)
        assert [layer.kind for layer in info.layers] == [LayerKind.RECURRENT] * 4
        assert {layer.state_size for layer in info.layers} == {size}
        found = info.kv_bytes(4096, parallel=3)
        assert (found.full, found.sliding, found.recurrent) == (0, 0, 3 * 4 * 4 * size)
    linear = info_of(tmp_path, "minimax-01")
    assert [layer.kind.value for layer in linear.layers] == ["recurrent"] * 4
    assert linear.layers[0].state_size == 4 * 32 * 32
    encoder = info_of(tmp_path, "bert")
    assert {layer.kind for layer in encoder.layers} == {LayerKind.NONE}
    assert encoder.kv_bytes(512).total == 0


def test_vocabularies_are_counted_where_they_are(tmp_path: pathlib.Path) -> None:
    keys = model_keys()
    del keys["vocab_size"]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes("llama", keys, {"token_embd.weight": np.zeros((77, 64))}))
    assert gguf_info(path).n_vocab == 77
    assert gguf_info(path).facts["n_vocab"].source == "tensor token_embd.weight"
    path.write_bytes(gguf_bytes("llama", keys))
    assert gguf_info(path).n_vocab == 0


def test_models_that_are_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(gguf_bytes())
    with pytest.raises(ModelLoadError, match="does not say its architecture"):
        gguf_info(path)
    path.write_bytes(gguf_bytes("llama", {"block_count": 2}))
    with pytest.raises(ModelLoadError, match="lacks the key llama.context_length"):
        gguf_info(path)
    with pytest.raises(ModelLoadError, match="fewer factors for RoPE than the 16"):
        info_of(tmp_path, "llama", {"rope_freqs.weight": np.ones(8)})
    with pytest.raises(ModelLoadError, match="factors of RoPE are not positive"):
        info_of(tmp_path, "llama", {"rope_freqs.weight": np.zeros(16)})
