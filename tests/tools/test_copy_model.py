"""The copy of a model in another type."""

from __future__ import annotations

import pathlib

import gguf
import numpy as np
import pytest

from copy_model import write_copy
from models.registry import make_tiny_model
from pytriattn._native import core


@pytest.fixture(scope="module")
def copy(smollm2: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("f16") / "copy.gguf"
    write_copy(smollm2, path)
    return path


@pytest.mark.slow
def test_weights_are_the_model_s_rounded(smollm2: pathlib.Path, copy: pathlib.Path) -> None:
    before = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2).tensors}
    after = {tensor.name: tensor for tensor in gguf.GGUFReader(copy).tensors}
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        values = gguf.dequantize(before[name].data, before[name].tensor_type)
        assert tensor.shape.tolist() == before[name].shape.tolist()
        assert np.array_equal(tensor.data.reshape(-1), values.astype(tensor.data.dtype).reshape(-1))
    assert {tensor.tensor_type.name for tensor in after.values()} == {"F16", "F32"}


@pytest.mark.slow
def test_the_rest_of_the_file_is_the_same(smollm2: pathlib.Path, copy: pathlib.Path) -> None:
    fields = [
        {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if not name.startswith("GGUF.")}
        for path in (smollm2, copy)
    ]
    assert {name for name in fields[0] if fields[0][name] != fields[1].get(name)} <= {"general.file_type"}
    assert fields[0].keys() == fields[1].keys()


def test_it_predicts_what_the_model_predicts(smollm2: pathlib.Path, copy: pathlib.Path) -> None:
    rows = []
    for path in (smollm2, copy):
        context = core.Context(core.Model(str(path)), core.DecoderParams(n_ctx=256, n_threads=1))
        context.read(0, np.arange(20, 60, dtype=np.int32), 0)
        rows.append(context.logits())
    assert np.corrcoef(rows)[0, 1] > 0.999


def test_rows_that_do_not_fit_a_type_stay_exact(tmp_path: pathlib.Path, tiny_folder: pathlib.Path) -> None:
    source = make_tiny_model("qwen35", tiny_folder)
    write_copy(source, tmp_path / "copy.gguf", gguf.GGMLQuantizationType.Q4_1)
    before = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    kinds = set()
    for tensor in gguf.GGUFReader(tmp_path / "copy.gguf").tensors:
        kinds.add(tensor.tensor_type.name)
        if tensor.tensor_type.name == "F32":
            assert np.array_equal(tensor.data.reshape(-1), before[tensor.name].data.reshape(-1))
        else:
            assert tensor.shape[0] % 32 == 0
    assert kinds == {"F32", "Q4_1"}
