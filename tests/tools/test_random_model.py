"""The maker of random models in a real one's shape, and the benchmark that runs on them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import gguf
import numpy as np
import pytest

import random_model
from pytriattn._native import core
from support.paths import ROOT

SMALL = dataclasses.replace(random_model.QWEN3_8B, n_layer=8, n_embd=256, n_ff=512, n_vocab=512)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("random") / "small.gguf"
    random_model.write(SMALL, path)
    return path


def test_the_real_shape_has_the_size_of_the_real_file() -> None:
    # Qwen3-8B-Q4_K_M.gguf has 5,027,783,488 bytes, 6 MB of them the vocabulary
    assert 5.01e9 < sum(tensor.n_bytes for tensor in random_model.tensors(random_model.QWEN3_8B)) < 5.028e9


def test_weights_keep_the_variance_of_their_input(small: pathlib.Path) -> None:
    for tensor in gguf.GGUFReader(small).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            assert 0.9 < values.mean() < 1.6
        else:
            deviation = 1.0 if tensor.name.startswith("token_embd") else 1 / np.sqrt(values.shape[-1])
            assert values.std() == pytest.approx(deviation, rel=0.02)
            assert abs(values.mean()) < 0.05 * deviation


def test_types_are_those_of_the_mix(small: pathlib.Path) -> None:
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(small).tensors}
    more = [layer for layer in range(8) if types[f"blk.{layer}.attn_v.weight"] == "Q6_K"]
    assert more == [0, 3, 6, 7]
    assert all((types[f"blk.{i}.ffn_down.weight"] == "Q6_K") == (i in more) for i in range(8))
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == types["blk.0.attn_q.weight"] == "Q4_K"


def test_it_decodes_and_is_the_same_every_time(small: pathlib.Path, tmp_path: pathlib.Path) -> None:
    random_model.write(SMALL, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == small.read_bytes()
    context = core.Context(core.Model(str(small)), core.DecoderParams(n_ctx=256, n_threads=2))
    rows = []
    for tokens in ([1, 2, 3], [1, 2, 4]):
        context.clear()
        context.read(0, np.array(tokens, dtype=np.int32))
        rows.append(np.array(context.logits(-1)))
    assert all(np.isfinite(row).all() for row in rows)
    assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_rows_that_the_types_cannot_hold_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="n_ff is 500, it must be a multiple of 256"):
        random_model.write(dataclasses.replace(SMALL, n_ff=500), tmp_path / "no.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_benchmark_over_contexts(tmp_path: pathlib.Path) -> None:
    small, figures = tmp_path / "small.gguf", tmp_path / "figures.json"
    random_model.write(dataclasses.replace(SMALL, n_layer=2), small)
    command = [
        sys.executable,
        str(ROOT / "tools" / "bench" / "contexts.py"),
        "--model",
        str(small),
        "--json",
        str(figures),
    ]
    command += ["--positions", "128", "512", "--budgets", "256", "--batches", "1", "2", "--caches", "f16", "q4_0"]
    done = subprocess.run([*command, "--rounds", "1"], check=True, capture_output=True, text=True)
    points = json.loads(figures.read_text())
    assert len(points) == 2 * 2 * 2 * 2  # caches, batches, positions; the full cache and a budget
    for point in points:
        assert point["tokens_per_s"] > 0
        if point["budget"] is None or point["position"] < 256:
            assert point["evictions"] == 0
        else:
            assert point["evictions"] == point["n_seq"]
            assert all(0 < share < 1 for share in point["shares"].values())
    sizes = {(p["cache"], p["n_seq"], p["budget"]): p["kv_bytes"] for p in points}
    assert sizes["f16", 2, 256] == 2 * sizes["f16", 1, 256] < sizes["f16", 2, None]
    assert sizes["q4_0", 1, 256] * 32 == sizes["f16", 1, 256] * 9
    assert "q4_0, 2 sequences" in done.stdout
    assert "f16, 1 x 512 tokens, budget 256: " in done.stdout
