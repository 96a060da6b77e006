"""pytriattn-preflight: each way in which a model, statistics, a budget and a build can fail to fit, as `Llama` would
find it.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.vision import make_projector
from pytriattn import (
    Llama,
    TriAttentionStats,
    gguf_info,
)
from pytriattn._util.text import format_bytes
from pytriattn.cli.preflight import main
from support.preflight_inputs import stats_of

Files = dict[str, pathlib.Path]


@pytest.fixture(scope="module")
def files(
    smollm2: pathlib.Path,
    gemma3: pathlib.Path,
    smollm2_stats: TriAttentionStats,
    gemma3_stats: TriAttentionStats,
    tmp_path_factory: pytest.TempPathFactory,
) -> Files:
    folder = tmp_path_factory.mktemp("preflight")
    smollm2_stats.save(folder / "smollm2")
    gemma3_stats.save(folder / "gemma3")
    content = bytearray((folder / "smollm2").read_bytes())
    (folder / "cut").write_bytes(content[: len(content) // 2])
    content[-100] ^= 255
    (folder / "damaged").write_bytes(content)
    (folder / "text").write_text("Three short words.")
    return {
        **{name: folder / name for name in ("smollm2", "gemma3", "cut", "damaged", "text", "missing")},
        "SMOLLM2": smollm2,
        "GEMMA3": gemma3,
        "FOLDER": folder,
    }


def check(
    capsys: pytest.CaptureFixture[str], model: object, stats: object, *arguments: object
) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON object."""
    code = main([str(model), str(stats), *map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert not printed.err
    return code, json.loads(printed.out)


def status_of(found: dict[str, Any]) -> dict[str, str]:
    """Return name -> the worst status."""
    order = ("ok", "warn", "fail")
    result: dict[str, str] = {}
    for finding in found["findings"]:
        worst = max(result.get(finding["name"], "ok"), finding["status"], key=order.index)
        result[finding["name"]] = worst
    return result


def message_of(found: dict[str, Any], name: str) -> str:
    return " ".join(finding["message"] for finding in found["findings"] if finding["name"] == name)


def test_a_fitting_pair(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 1024)
    assert code == 0
    assert found["fit"] is True
    assert set(status_of(found).values()) == {"ok"}
    assert list(status_of(found)) == [
        *("statistics", "architecture", "layers", "flash attention", "build", "context", "budget", "memory"),
    ]
    assert "30 of 30 layers" in message_of(found, "layers")
    assert "CPU" in message_of(found, "build")
    assert "12.5% of 8,192" in message_of(found, "budget")


def test_json_keeps_its_schema(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = check(capsys, files["GEMMA3"], files["gemma3"], "--budget", 1024, "--ctx", 8192, "--vram", "1G")
    assert (found["schema"], found["tool"]) == (1, "pytriattn-preflight")
    assert set(found) == {"schema", "tool", "fit", "findings", "statistics", "model", "settings", "memory"}
    for finding in found["findings"]:
        assert set(finding) == {"name", "status", "message"}
    assert set(found["statistics"]) == {"path", "readable", "model", "n_tokens", "layers"}
    assert found["statistics"]["layers"] == [5, 11, 17]
    assert found["model"]["sha256"] == found["statistics"]["model"]["sha256"]
    assert set(found["settings"]) == {
        *("cache", "mode", "window", "n_sink", "scale_budget_by_attention", "allow_untested", "memory"),
        *("draft_model", "mmproj"),
    }
    assert set(found["memory"]) == {"weights_bytes", "full_cache", "budget"}
    assert found["memory"]["weights_bytes"] == files["GEMMA3"].stat().st_size
    with Llama(files["GEMMA3"], budget=1024, n_ctx=8192, mode="recent") as llm:
        assert found["memory"]["budget"]["total_bytes"] == llm.kv_stats()["kv_bytes"]


def test_text(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(files["GEMMA3"]), str(files["gemma3"]), "--budget", "1024"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 of 18 layers are evicted from; left alone: 15 sliding" in text
    assert "would keep 27,477 keys, not 1,024" in text  # 32768 * (1 - (1 - 1/32) * 3/18)
    assert text.endswith("They fit.")
    assert main([str(files["GEMMA3"]), str(files["smollm2"]), "--budget", "1024"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("They do not fit.")


def test_statistics_of_another_model_differ_in_named_facts(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["GEMMA3"], files["smollm2"], "--budget", 1024)
    assert code == 1
    assert [name for name, status in status_of(found).items() if status == "fail"] == ["statistics"]
    message = message_of(found, "statistics").lower()
    for fact in (
        "smollm2 135m",
        "gemma 3 270m",
        "architecture: statistics llama, model gemma3",
        "layers with full attention: statistics 30 (0-29), model 3 (5, 11, 17)",
        "query heads: statistics 9, model 4",
        "kv heads: statistics 3, model 1",
        "head_dim: statistics 64, model 256",
        "n_rot: statistics 64, model 256",
        "rotated pairs: statistics neighbours, model halves",
    ):
        assert fact in message


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ("missing", "cannot be read: No such file"),
        ("text", "it is no GGUF container"),
        ("cut", "cannot be used|are damaged"),
        ("damaged", "do not match its checksum"),
        ("FOLDER", "cannot be read"),
        pytest.param("SMOLLM2", "not one of TriAttention statistics", marks=pytest.mark.slow),
    ],
)
def test_statistics_that_cannot_be_read(
    files: Files, capsys: pytest.CaptureFixture[str], stats: str, message: str
) -> None:
    code, found = check(capsys, files["SMOLLM2"], files[stats], "--budget", 1024)
    assert code == 1
    assert [name for name, status in status_of(found).items() if status == "fail"] == ["statistics"]
    assert re.search(message, message_of(found, "statistics"))
    assert found["statistics"]["readable"] is False


def test_a_budget_that_is_too_small(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 36)
    assert (code, status_of(found)["budget"]) == (1, "fail")
    assert "at least 37" in message_of(found, "budget")
    assert check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 37)[0] == 0


@pytest.mark.parametrize("budget", [1000, 897])
def test_a_budget_above_the_context_does_nothing(files: Files, capsys: pytest.CaptureFixture[str], budget: int) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", budget, "--ctx", 1024)
    assert (code, status_of(found)["budget"]) == (0, "warn")
    assert "does nothing" in message_of(found, "budget")
    assert (
        status_of(check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 896, "--ctx", 1024)[1])["budget"]
        == "ok"
    )


def test_memory_that_is_too_small(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--budget", 4096, "--ctx", 32768, "--vram", "150M")
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], *arguments)
    assert (code, status_of(found)["memory"]) == (1, "fail")
    advice = message_of(found, "advice")
    assert "the largest budget that fits is" in advice
    assert "half the budget (2,048)" in advice
    assert "type_k and type_v q8_0" in advice
    assert "a smaller context saves nothing" in advice
    largest = advice.split("the largest budget that fits is ")[1].split(" ")[0].replace(",", "")
    fitting, one_more = (
        check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", b, "--ctx", 32768, "--vram", "150M")[0]
        for b in (int(largest), int(largest) + 1)
    )
    assert (fitting, one_more) == (0, 1)


def test_weights_that_do_not_fit(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 512, "--vram", "50M")
    assert code == 1
    assert message_of(found, "advice").startswith("the weights alone do not fit")


def test_a_draft_model_and_an_encoder_of_images_are_counted(
    files: Files, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    projector = make_projector(tmp_path / "mmproj.gguf")
    arguments: tuple[object, ...] = ("--budget", 512, "--vram", "150M")
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], *arguments, "--mmproj", projector)
    assert code == 0 and "of the encoder of images" in message_of(found, "memory")
    assert found["settings"]["mmproj"] == str(projector)
    # twice the weights, and a cache of 4,096 positions that has no budget
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], *arguments, "--draft-model", files["SMOLLM2"])
    assert code == 1 and status_of(found)["draft model"] == "ok"
    rows = gguf_info(files["SMOLLM2"]).kv_bytes(4096).total
    assert f"{format_bytes(files['SMOLLM2'].stat().st_size + rows)} of the draft model" in message_of(found, "memory")
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 512, "--draft-model", files["GEMMA3"])
    assert code == 1 and "same vocabulary" in message_of(found, "draft model")


def test_a_budget_that_saves_no_memory(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 800, "--ctx", 1024)
    assert (code, status_of(found)["budget"], status_of(found)["advice"]) == (0, "ok", "warn")
    assert "saves no memory" in message_of(found, "advice")


def test_a_text_beyond_what_the_model_was_trained_for(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, files["SMOLLM2"], files["smollm2"], "--budget", 512, "--ctx", 8193)
    assert (code, status_of(found)["context"]) == (0, "warn")


@pytest.mark.parametrize("name", ["missing", "text", "FOLDER", "cut"])
def test_a_model_that_cannot_be_read_is_an_error(
    files: Files, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, name: str
) -> None:
    path = files[name]
    if name == "cut":
        path = tmp_path / "cut.gguf"
        path.write_bytes(files["SMOLLM2"].read_bytes()[:100_000])
    assert main([str(path), str(files["smollm2"]), "--budget", "512"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("pytriattn-preflight: ")
    assert printed.err.count("\n") == 1
    assert str(path) in printed.err
    assert not printed.out


def test_an_untested_architecture_through_the_program(
    tiny: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stats = stats_of(tiny("llama"))
    replace(stats, model=replace(stats.model, name="Tiny")).save(tmp_path / "s")
    monkeypatch.setattr("pytriattn.model_info.tested_architectures.passed_architectures", frozenset)
    code, found = check(capsys, tiny("llama"), tmp_path / "s", "--budget", 128)
    assert (code, status_of(found)["architecture"]) == (1, "fail")
    code, found = check(capsys, tiny("llama"), tmp_path / "s", "--budget", 128, "--allow-untested")
    assert (code, status_of(found)["architecture"]) == (0, "warn")


@pytest.mark.slow
def test_model_and_statistics_in_each_others_place(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(files["smollm2"]), str(files["SMOLLM2"]), "--budget", "512"]) == 2
    assert "holds statistics and no model" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["m", "s"], ["m", "--budget", "9"], ["m", "s", "--budget", "x"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
