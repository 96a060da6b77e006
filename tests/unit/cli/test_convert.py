"""pytriattn-convert, as a program."""

from __future__ import annotations

import os
import pathlib

import pytest

from models.builder import TinyModel
from pytriattn import TriAttentionStats
from pytriattn.cli.convert import main
from pytriattn.conversion.files import FORMATS, convert_file
from support.foreign_files import pt_bytes, random_heads
from support.tiny_context import Tiny

LLAMA = [(layer, head) for layer in range(3) for head in range(4)]


def test_the_program(tiny: Tiny, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny("llama"))
    some = {key: values for key, values in random_heads(LLAMA, 16).items() if key != (1, 1)}
    (tmp_path / "in.pt").write_bytes(pt_bytes(some, head_dim=32))
    ours, again = str(tmp_path / "a.triattention"), str(tmp_path / "b.triattention")
    assert main([str(tmp_path / "in.pt"), ours, "--model", model]) == 0
    printed = capsys.readouterr()
    assert "published .pt" in printed.out
    assert printed.err.startswith("pytriattn-convert: note: 1 of 12 query heads")
    for out, format_name in [("x.bin", None), ("x.pt", None), ("y", "fork"), ("z", "fork-v3")]:
        chosen = ["--format", format_name] if format_name else []
        assert main([ours, str(tmp_path / out), "-m", model, *chosen]) == 0
        assert main([str(tmp_path / out), again, "-m", model]) == 0
        assert pathlib.Path(again).read_bytes() == pathlib.Path(ours).read_bytes()
    # from one foreign format to another, without ours in between
    assert main([str(tmp_path / "x.pt"), str(tmp_path / "x2.bin"), "-m", model]) == 0
    assert (tmp_path / "x2.bin").read_bytes() == (tmp_path / "x.bin").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere.pt", "{tmp}/o.triattention", "-m", "{model}"], "nowhere.pt' cannot be read"),
        (["{tmp}/in.pt", "{tmp}/o.triattention", "-m", "{tmp}/nowhere.gguf"], "does not exist"),
        (["{tmp}/in.pt", "{tmp}/o.triattention", "-m", "{tmp}/in.pt"], "not a GGUF file"),
        (["{tmp}/in.pt", "{tmp}/o.xyz", "-m", "{model}"], "tells no format"),
        (["{tmp}/in.pt", "{tmp}/no/folder.bin", "-m", "{model}"], "does not exist"),
        (["{tmp}/in.pt", "{tmp}/in.pt", "-m", "{model}"], "the file to convert"),
        (["{tmp}/in.pt", "{model}", "-m", "{model}", "--format", "pt"], "the model itself"),
        (["{tmp}/in.pt", "{tmp}/o.triattention", "-m", "{other}"], "do not fit the model"),
        (["{model}", "{tmp}/o.bin", "-m", "{model}"], "not one of TriAttention"),
        (["{tmp}/ours.triattention", "{tmp}/o.triattention", "-m", "{model}"], "already"),
        (["{tmp}/ours.triattention", "{tmp}/o.bin", "-m", "{other}"], "calibrated on"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(
    tiny: Tiny, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "in.pt").write_bytes(pt_bytes(random_heads(LLAMA, 16), head_dim=32))
    names = {"tmp": tmp_path, "model": tiny("llama"), "other": tiny("qwen3")}
    convert_file(tmp_path / "in.pt", tmp_path / "ours.triattention", tiny("llama"))
    assert main([argument.format(**names) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("pytriattn-convert: ")
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pt", "ours.triattention"]


# --- real files ---

REAL = {
    "published-ds-r1-qwen-7b.pt": (TinyModel("qwen2", n_layer=28, n_head=28, n_head_kv=4, head_dim=128), 28, 0),
    "tria-v1-qwen3-1.7b.bin": (
        TinyModel("qwen3", n_layer=28, n_head=16, n_head_kv=8, head_dim=128, freq_base=1e6),
        28,
        1,
    ),
    "tria-v2-qwen3.5-27b.bin": (
        TinyModel("qwen35", n_layer=64, n_head=24, n_head_kv=4, head_dim=256, n_rot=64, freq_base=1e7),
        16,
        0,
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_convert(name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For models of which the GGUF's metadata alone is here: nothing else is read of it."""
    folder = os.environ.get("PYTRIATTN_FORMATS_DIR")
    if not folder:
        pytest.skip("PYTRIATTN_FORMATS_DIR is not set")
    model, n_layers, code = REAL[name]
    if model.arch == "qwen35":
        model.keys(
            {
                "rope.dimension_sections": [11, 11, 10, 0],
                "full_attention_interval": 4,
                "ssm.conv_kernel": 4,
                "ssm.inner_size": 6144,
                "ssm.state_size": 128,
                "ssm.time_step_rank": 48,
                "ssm.group_count": 16,
            }
        )
    model.ends()
    model.save(tmp_path / "model.gguf")
    arguments = [str(pathlib.Path(folder) / name), str(tmp_path / "o.triattention"), "-m", str(tmp_path / "model.gguf")]
    assert main(arguments) == code
    if code:
        # the file has the default base, not Qwen3's
        assert "RoPE base 10000, the model 1e+06" in capsys.readouterr().err
        assert main([*arguments, "--ignore-rope-theta"]) == 0
    stats = TriAttentionStats.load(tmp_path / "o.triattention")
    assert len(stats.layers) == n_layers
    for format_name in FORMATS[1:]:
        assert (
            main([str(tmp_path / "o.triattention"), str(tmp_path / "x"), *arguments[2:], "--format", format_name]) == 0
        )
        assert main([str(tmp_path / "x"), str(tmp_path / "p.triattention"), *arguments[2:]]) == 0
        assert (tmp_path / "p.triattention").read_bytes() == (tmp_path / "o.triattention").read_bytes()
