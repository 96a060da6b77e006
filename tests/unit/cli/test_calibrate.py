"""pytriattn-calibrate, as a program."""

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from pytriattn import TriAttentionStats
from pytriattn.cli.calibrate import main
from pytriattn.stats.bundled import bundled_text


@pytest.fixture
def corpus(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "corpus.txt"
    path.write_text(bundled_text(), encoding="utf-8")
    return path


def test_it_writes_statistics_and_sums_up(
    smollm2: pathlib.Path, corpus: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "smollm2.triattention"
    assert main([str(corpus), str(corpus), "-m", str(smollm2), "-o", str(out), "--tokens", "150", "--ctx", "100"]) == 0
    stats = TriAttentionStats.load(out)
    assert stats.n_tokens == 150
    printed = capsys.readouterr().out
    for word in (
        "150",
        "30 with full attention",
        "32 per head",
        f"{stats.mean_concentration():.3f}",
        f"{stats.fit_r2:.3f} (held-out R²",
        "seconds",
        str(out),
    ):
        assert word in printed


def test_standard_input_and_the_default_name(
    smollm2: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    model.symlink_to(smollm2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bundled_text().encode())))
    assert main(["-", "-m", str(model), "--tokens", "64"]) == 0
    assert TriAttentionStats.load(tmp_path / "model.triattention").n_tokens == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{corpus}", "-m", "{tmp}/nowhere.gguf"], "does not exist"),
        (["{corpus}", "-m", "{corpus}"], "not a GGUF file"),
        (["{tmp}/nowhere.txt", "-m", "{model}"], "nowhere.txt' cannot be read"),
        (["{binary}", "-m", "{model}"], "not UTF-8"),
        (["{short}", "-m", "{model}"], "at least 32"),
        (["{corpus}", "-m", "{model}", "--tokens", "5"], "at least 32"),
        (["{corpus}", "-m", "{model}", "--ctx", "5"], "at least 32"),
        (["{corpus}", "-m", "{model}", "-o", "{tmp}/no/such/folder/x"], "does not exist"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(
    smollm2: pathlib.Path,
    corpus: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short").write_text("Three short words.")
    names = {
        "corpus": corpus,
        "tmp": tmp_path,
        "model": smollm2,
        "binary": tmp_path / "binary",
        "short": tmp_path / "short",
    }
    assert main([argument.format(**names) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("pytriattn-calibrate: ")
    assert error.count("\n") == 1


def test_the_model_is_not_overwritten(
    tiny: Callable[[str], pathlib.Path], corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    model = tmp_path / "model.gguf"
    content = tiny("llama").read_bytes()
    model.write_bytes(content)
    assert main([str(corpus), "-m", str(model), "-o", str(model)]) == 1
    assert model.read_bytes() == content


def test_wrong_usage_exits_with_2() -> None:
    with pytest.raises(SystemExit) as error:
        main(["corpus.txt"])
    assert error.value.code == 2


def test_the_installed_program(smollm2: pathlib.Path) -> None:
    program = pathlib.Path(sys.executable).parent / "pytriattn-calibrate"
    assert "--n-gpu-layers" in subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
