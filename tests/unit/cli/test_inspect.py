"""pytriattn-inspect: facts, bytes that are those of a real context, a schema that stays, and errors of one line."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models import dense
from models.builder import TinyModel
from pytriattn import TriAttentionStats
from pytriattn._native import core
from pytriattn.cli.inspect import main
from pytriattn.model_info.memory import scaled_budget_of, what_fits
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings
from pytriattn.preflight.findings import Status
from pytriattn.preflight.run import run_preflight
from pytriattn.preflight.settings import PreflightSettings

KEYS: dict[str, set[str]] = {
    "": {"schema", "tool", "model", "layers", "ropes", "facts", "settings", "memory", "fit"},
    "model": {
        *("path", "name", "architecture", "file_bytes", "n_layer", "n_embd", "n_vocab", "n_ctx_train", "window"),
        *("has_alibi", "has_learned_positions", "flash_attention", "is_exact"),
    },
    "layers": {
        *("index", "kind", "owner", "n_head", "n_head_kv", "head_dim_k", "head_dim_v", "k_width", "v_width"),
        *("state_size", "rope", "has_cells", "index_k_width", "index_v_width"),
    },
    "ropes": {
        *("mode", "interleaved", "head_dim", "rot_begin", "n_rot", "freq_base", "freq_scale", "scaling", "ext_factor"),
        *("attn_factor", "beta_fast", "beta_slow", "n_ctx_orig", "sections", "factors", "long_factors", "scale"),
    },
    "settings": {
        *("ctx", "budget", "interval", "type_k", "type_v", "parallel", "n_batch", "n_ubatch", "flash_attn", "prefill"),
    },
    "fit": {"memory", "weights", "largest_ctx", "ctx_is_unlimited", "largest_budget", "ctx"},
}
"""Version 1 of the schema. A field that is taken away or renamed needs another version."""

TINY = [
    *(
        "llama",
        "qwen3",
        "gemma3",
        "gemma4",
        "gemma3n",
        "phi3",
        "glm4",
        "gpt-oss",
        "deepseek2",
        "deepseek2-full",
        "lfm2",
    ),
    *("granitehybrid", "qwen35", "qwen35-mtp", "bailingmoe3", "gpt2", "bloom", "plm", "step35", "openelm", "deci"),
]
LATENT = ("deepseek2", "bailingmoe3")


def inspect(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return what the program prints."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    return printed.out


def inspect_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(inspect(capsys, *arguments, "--json"))
    return result


def allocated(path: pathlib.Path, ctx: int, budget: int | None, interval: int, **options: Any) -> int:
    """Return the bytes of the caches of a real context."""
    eviction = None
    if budget is not None:
        eviction = core.EvictionConfig(mode="recent", budget=budget, interval=interval)
    model = core.Model(str(path))
    if 0 < model.long_rope_threshold < ctx:
        model.use_long_rope()
    counters = core.Context(model, core.DecoderParams(n_ctx=ctx, n_threads=1, eviction=eviction, **options)).counters()
    return int(counters.k_bytes + counters.v_bytes + counters.recurrent_bytes)


# -- facts
# ---------------------------------------------------------------------------------------------------------------------


def test_text_of_a_plain_model(smollm2: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect(capsys, smollm2, "--ctx", 8192, "--budget", 1024)
    words = " ".join(text.split())
    for fact in (
        "Smollm2 135M",
        "architecture llama",
        "30: 30 full attention",
        "576 wide, 49,152 tokens",
        "8,192 positions trained",
        "full attention 0-29 9 3 64 64 neighbours (NORM), all 64 dimensions, base 100000",
        "KV memory (K f16, V f16)",
        "22.5 KiB",  # 30 layers x 3 heads x (64 + 64) values x 2 bytes
        "180.0 MiB",
        "28.1 MiB",  # 1,280 cells
        "Where the facts come from",
        "key llama.block_count",
    ):
        assert fact in words
    assert "\x1b" not in text  # no colours in a file


def test_text_of_a_sliding_model(gemma3: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(inspect(capsys, gemma3, "--budget", "1024", "--vram", "1G").split())
    for fact in (
        "gemma3",
        "18: 3 full attention, 15 sliding window",
        "full attention 5, 11, 17 4 1 256 256 halves (NEOX), all 256 dimensions, base 1e+06",
        "sliding window 0-4, 6-10, 12-16 4 1 256 256 halves (NEOX), all 256 dimensions, base 10000",
        "512 positions in sliding layers",
        "In 1.0 GiB,",
        "largest context without a budget:",
    ):
        assert fact in words


@pytest.mark.parametrize(
    ("arch", "rope"),
    [
        (
            "phi3",
            "halves (NEOX), dimensions 0-23 of 32, base 10000, longrope, factors 1 to 1.5 up to 512 positions, 1 to "
            "16 beyond",
        ),
        ("gemma4", "24 of 32 bands do not turn"),
        ("gpt-oss", "base 150000, YaRN x 4 from 512 positions, scale 1.139"),
        ("llama-linear", "all 32 dimensions, base 10000, linear x 4"),
        ("llama-ropefreqs", "frequency factors 1 to 8"),
        ("qwen2vl", "halves (M-RoPE), all 32 dimensions, base 1e+06, sections 4/6/6/0"),
        ("deepseek2", "in K neighbours (NORM), dimensions 96-127 of 128"),
        ("smollm3", "full attention 3 4 2 64 64 none"),
        ("deci", "no attention 1, 3 - - - - -"),
        ("bloom", "attention is biased by distance (ALiBi)"),
        ("gpt2", "learned, in a table"),
    ],
)
def test_rope_in_words(
    arch: str,
    rope: str,
    tiny: Callable[[str], pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert rope in " ".join(inspect(capsys, tiny(arch)).split())


def test_bytes_of_an_unknown_architecture_are_a_guess(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dense.llama()
    model.arch = "unheard-of"
    model.save(tmp_path / "model.gguf")
    assert "These bytes are a guess" in " ".join(inspect(capsys, tmp_path / "model.gguf").split())


def test_json_keeps_its_schema(gemma3: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(capsys, gemma3, "--ctx", 4096, "--budget", 512, "--vram", "400M")
    assert (found["schema"], found["tool"]) == (1, "pytriattn-inspect")
    assert set(found) == KEYS[""]
    for name in ("model", "settings", "fit"):
        assert set(found[name]) == KEYS[name]
    for name in ("layers", "ropes"):
        for entry in found[name]:
            assert set(entry) == KEYS[name]
    for fact in found["facts"].values():
        assert set(fact) == {"value", "source"}
    assert set(found["memory"]) == {"full_cache", "budget"}
    for memory in found["memory"].values():
        assert set(memory) == {"total_bytes", "layers"}
        assert set(memory["layers"]) == {"full", "sliding"}
        for kind in memory["layers"].values():
            assert set(kind) == {"n_layers", "bytes_per_token", "cells", "bytes"}
        assert memory["total_bytes"] == sum(kind["bytes"] for kind in memory["layers"].values())
    assert [layer["kind"] for layer in found["layers"]] == (["sliding"] * 5 + ["full"]) * 3
    bases = {found["ropes"][layer["rope"]]["freq_base"]: layer["kind"] for layer in found["layers"]}
    assert bases == {10000: "sliding", 1e6: "full"}


def test_without_a_budget_or_memory_these_are_null(smollm2: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(capsys, smollm2)
    assert found["settings"]["ctx"] == found["model"]["n_ctx_train"] == 8192
    assert found["memory"]["budget"] is None
    assert found["fit"] is None


@pytest.mark.parametrize("arch", TINY)
def test_every_kind_of_model_is_described(
    arch: str, tiny: Callable[[str], pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny(arch)
    found = inspect_json(capsys, path, "--budget", 128, "--ctx", 2048)
    model = core.Model(str(path))
    context = core.Context(model, core.DecoderParams(n_ctx=256))
    full = [layer["index"] for layer in found["layers"] if layer["kind"] == "full" and layer["n_head_kv"]]
    assert full == [layer.layer for layer in context.layers]
    for node in context.attention():
        layer = found["layers"][node.layer]
        assert (layer["owner"], layer["n_head"]) == (node.owner, node.n_head)
        rope = None if layer["rope"] is None else found["ropes"][layer["rope"]]
        assert (rope or {"n_rot": 0})["n_rot"] == node.n_rot
    text = inspect(capsys, path, "--budget", 128, "--ctx", 2048)
    words = " ".join(text.split())
    assert f"architecture {model.metadata['general.architecture']}" in words
    for kind, name in (("sliding", "sliding window"), ("recurrent", "recurrent"), ("mtp", "multi-token prediction")):
        count = sum(layer["kind"] == kind for layer in found["layers"])
        assert (f"{count} {name}" in words) == (count > 0)


# -- bytes
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", TINY)
@pytest.mark.parametrize(
    ("ctx", "budget", "parallel", "types"),
    [
        (1500, None, 1, ("f16", "f16")),
        (2048, 200, 1, ("f16", "f16")),
        (2000, 300, 2, ("f32", "bf16")),
        (2048, 100, 3, ("q8_0", "q8_0")),
    ],
)
def test_bytes_are_those_of_a_context(
    arch: str,
    tiny: Callable[[str], pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    ctx: int,
    budget: int | None,
    parallel: int,
    types: tuple[str, str],
) -> None:
    if arch == "plm" and types[1] == "q8_0":
        pytest.skip("V is quantised only with flash attention, which this architecture has not")
    if arch in LATENT and types[0] != types[1]:
        pytest.skip("values are a part of the keys, so llama.cpp refuses another type")
    arguments: list[object] = ["--ctx", ctx, "--parallel", parallel, "--type-k", types[0], "--type-v", types[1]]
    arguments += ["--interval", 64]
    if budget is not None:
        arguments += ["--budget", budget]
    path = tiny(arch)
    memory = inspect_json(capsys, path, *arguments)["memory"]
    found = memory["full_cache" if budget is None else "budget"]["total_bytes"]
    assert found == allocated(path, ctx, budget, 64, n_seq_max=parallel, type_k=types[0], type_v=types[1])


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
@pytest.mark.parametrize("budget", [None, 256])
def test_bytes_of_real_models(
    model: str, budget: int | None, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(model)
    arguments = [] if budget is None else ["--budget", budget]
    memory = inspect_json(capsys, path, "--ctx", 3000, *arguments)["memory"]
    found = memory["full_cache" if budget is None else "budget"]["total_bytes"]
    assert found == allocated(path, 3000, budget, 128)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_what_fits_is_the_largest_that_does(model: str, request: pytest.FixtureRequest) -> None:
    info = gguf_info(request.getfixturevalue(model))
    settings = CacheOptions(n_ctx=8192, type_k="q8_0", n_seq_max=2)

    def takes(ctx: int, budget: int | None) -> int:
        return info.file_bytes + info.cache_bytes(replace(settings, n_ctx=ctx).with_budget(budget)).total

    least = EvictionSettings(1).least_budget
    smallest = takes(8192, least)
    for memory in (smallest, takes(8192, 700), takes(8192, 5000) + 1, takes(8192, 5000) - 1):
        fit = what_fits(info, settings, memory)
        assert fit.largest_ctx is not None
        assert takes(fit.largest_ctx, None) <= memory < takes(fit.largest_ctx + 1, None)
        fitting = [budget for budget in range(least, 8193) if takes(8192, budget) <= memory]
        assert fit.largest_budget == fitting[-1]
    none = what_fits(info, settings, info.file_bytes)
    assert none.largest_ctx is none.largest_budget is None
    everything = what_fits(info, settings, 2**60)
    assert everything.ctx_is_unlimited
    assert everything.largest_budget == 8192


@pytest.mark.slow
def test_a_full_cache_may_be_too_large_to_count(
    smollm2: pathlib.Path, capsys: pytest.CaptureFixture[str], smollm2_stats: TriAttentionStats
) -> None:
    arguments = (smollm2, "--ctx", 10**9, "--parallel", 4)
    found = inspect_json(capsys, *arguments, "--budget", 512)
    assert found["memory"]["full_cache"] is None
    assert found["memory"]["budget"]["layers"]["full"]["cells"] == 768
    assert "more than llama.cpp can count" in inspect(capsys, *arguments, "--budget", 512)
    assert main([str(argument) for argument in arguments]) == 2
    assert "can count" in capsys.readouterr().err
    settings = PreflightSettings(CacheOptions(n_ctx=10**9, n_seq_max=4, eviction=EvictionSettings(512)))
    findings = run_preflight(gguf_info(smollm2), settings, smollm2_stats, smollm2_stats.model)
    assert [finding.name for finding in findings if finding.status is Status.FAIL] == []


def test_learned_positions_limit_the_context(tiny: Callable[[str], pathlib.Path]) -> None:
    info = gguf_info(tiny("gpt2"))
    fit = what_fits(info, CacheOptions(), 2**40)
    assert (fit.largest_ctx, fit.ctx_is_unlimited) == (info.n_ctx_train, True)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "lfm2", "gemma3n", "deci", "bailingmoe3"])
def test_the_budget_is_scaled_as_at_load(arch: str, tiny: Callable[[str], pathlib.Path]) -> None:
    path = tiny(arch)
    info, model = gguf_info(path), core.Model(str(path))
    fraction = len(core.Context(model, core.DecoderParams(n_ctx=256)).layers) / model.n_layer
    for budget, ctx in ((100, 1000), (512, 4096), (3000, 2000)):
        kept = 1 - (1 - min(1.0, budget / ctx)) * fraction
        assert scaled_budget_of(info, budget, ctx) == max(budget, round(kept * ctx))


# -- errors
# --------------------------------------------------------------------------------------------------------------------


def damaged_files(model: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write files that are no model, or no longer one."""
    content = model.read_bytes()
    contents = {
        "empty": b"",
        "text": b"Once upon a time there was a model.\n" * 20,
        "magic": content[:4],
        "header": content[:200],
        "tensors": content[: len(content) // 2],
        "count": content[:16] + (2**60).to_bytes(8, "little") + content[24:],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents} | {"missing": folder / "missing", "folder": folder}


@pytest.mark.parametrize("name", ["empty", "text", "magic", "header", "tensors", "count", "missing", "folder"])
def test_damaged_files_are_one_line_and_exit_with_2(
    name: str, tiny: Callable[[str], pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = damaged_files(tiny("llama"), tmp_path)[name]
    assert main([str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("pytriattn-inspect: ")
    assert str(path) in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_type_that_does_not_divide_a_head(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = TinyModel("llama", n_layer=1, head_dim=48)
    model.ends()
    model.norms(0, "attn_norm", "ffn_norm")
    model.attention(0)
    model.ffn(0)
    path = tmp_path / "model.gguf"
    model.save(path)
    assert main([str(path)]) == 0
    capsys.readouterr()
    assert main([str(path), "--type-v", "q8_0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "q8_0" in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m", "--ctx", "-1"],
        ["m", "--ctx", "many"],
        ["m", "--budget", "0"],
        ["m", "--type-k", "q9_9"],
        ["m", "--parallel", "0"],
        ["m", "--vram", "12X"],
        ["m", "--vram", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(smollm2: pathlib.Path) -> None:
    command = f"'{sys.executable}' -m pytriattn.cli.inspect '{smollm2}' --json | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
