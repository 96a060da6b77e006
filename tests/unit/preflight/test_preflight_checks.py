"""The checks of preflight one by one, and that a real load agrees with them."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.registry import ARCHITECTURES, make_tiny_model
from pytriattn import (
    BudgetError,
    ContextError,
    KeyScoreOptions,
    Llama,
    StatsError,
    TriAttentionStats,
    TriAttnError,
    UnsupportedModelError,
)
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CacheOptions
from pytriattn.preflight.findings import Finding, Status, raise_failures
from pytriattn.preflight.run import run_preflight
from pytriattn.preflight.settings import PreflightSettings
from support.architecture_checks import REFUSED
from support.preflight_inputs import settings_of, stats_of
from support.typical import marked


def failures(findings: list[Finding]) -> dict[str, type[TriAttnError] | None]:
    return {finding.name: finding.error for finding in findings if finding.status is Status.FAIL}


def refused(path: pathlib.Path, settings: PreflightSettings, stats: TriAttentionStats | None = None) -> TriAttnError:
    """Return the error with which a real load ends."""
    cache, eviction = settings.cache, settings.cache.eviction
    assert eviction is not None
    with pytest.raises(TriAttnError) as error:
        Llama(
            path,
            triattn_stats=stats,
            budget=eviction.budget,
            mode=eviction.mode,
            n_ctx=cache.n_ctx,
            n_seq_max=cache.n_seq_max,
            reread=eviction.reread,
            type_k=cache.type_k,
            type_v=cache.type_v,
            flash_attn=False if cache.flash_attn == "off" else "auto",
        )
    return error.value


@pytest.mark.parametrize(
    ("arch", "settings", "name", "error", "words"),
    [
        ("bloom", settings_of(128, mode="per_layer_head"), "layers", UnsupportedModelError, "ALiBi"),
        ("bloom", settings_of(128, mode="global"), "layers", UnsupportedModelError, "ALiBi"),
        ("gpt2", settings_of(128, mode="global", n_ctx=4096), "context", ContextError, "learned positions"),
        ("plm", settings_of(128), "flash attention", BudgetError, "flash attention|moves values"),
        ("grok", settings_of(128), "flash attention", BudgetError, "flash attention|moves values"),
        ("openelm", settings_of(128, mode="per_head"), "layers", UnsupportedModelError, "same number of KV heads"),
        (
            "llama",
            settings_of(128, mode="recent", flash_attn="off", type_v="q8_0"),
            "context",
            ContextError,
            "q8_0",
        ),
        ("llama", settings_of(128, flash_attn="off"), "flash attention", BudgetError, "moves values"),
        ("deepseek2", settings_of(128, type_k="q8_0"), "context", ContextError, "type_k.*type_v"),
        ("llama", settings_of(20), "budget", BudgetError, "need at least 37"),
        ("gemma3", settings_of(128, reread=True, n_seq_max=2), "layers", UnsupportedModelError, "reread=False"),
        ("lfm2", settings_of(128, reread=True, n_seq_max=2), "layers", UnsupportedModelError, "reread=False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_llama_refuses_is_found_before(
    tiny: Callable[[str], pathlib.Path],
    arch: str,
    settings: PreflightSettings,
    name: str,
    error: type[TriAttnError],
    words: str,
) -> None:
    path = tiny(arch)
    stats = stats_of(path)
    findings = run_preflight(gguf_info(path), settings, stats, stats.model)
    assert failures(findings) == {name: error}
    with pytest.raises(error, match=words):
        raise_failures(findings)
    assert type(refused(path, settings, stats)) is error


@pytest.mark.parametrize("arch", marked(arch for arch in ARCHITECTURES if arch not in REFUSED))
def test_a_load_ends_as_preflight_says(tiny: Callable[[str], pathlib.Path], arch: str) -> None:
    path = tiny(arch)
    info, stats = gguf_info(path), stats_of(path)
    for mode, cache_type in itertools.product(("per_layer_head", "per_head", "global", "recent"), ("f16", "q8_0")):
        settings = settings_of(128, mode=mode, n_ctx=2048, type_k=cache_type, type_v=cache_type)
        errors = failures(run_preflight(info, settings, stats, stats.model))
        options = {"mode": mode, "n_ctx": 2048, "type_k": cache_type, "type_v": cache_type}
        if errors:
            with pytest.raises(TriAttnError) as error:
                Llama(path, triattn_stats=stats, budget=128, **options)
            assert type(error.value) in errors.values()
        else:
            Llama(path, triattn_stats=stats, budget=128, **options).close()


def test_statistics_without_a_fit_and_a_starved_budget_are_warned_of(tiny: Callable[[str], pathlib.Path]) -> None:
    path = tiny("llama")
    stats = stats_of(path)

    def warnings(**options: Any) -> list[str]:
        findings = run_preflight(gguf_info(path), settings_of(128, **options), stats, stats.model)
        return [finding.message for finding in findings if finding.status is Status.WARN and finding.name != "memory"]

    (unfitted,) = warnings()
    assert "no fitted weights" in unfitted and "pytriattn-calibrate" in unfitted
    assert warnings(mode="per_layer_head") == warnings(key_score=KeyScoreOptions(use_fit=False)) == []
    (starved,) = warnings(mode="per_layer_head", window=118)
    assert "window (118) leave little of the budget of 128" in starved


def test_statistics_of_every_architecture_fit_their_model(tiny: Callable[[str], pathlib.Path]) -> None:
    """Query heads of shared caches, latent attention, layers without RoPE: the facts that differ most between
    architectures.
    """
    for arch in (
        "gemma3n",
        "gemma4",
        "deepseek2",
        "smollm3",
        "phi3",
        "bailingmoe3",
        "qwen35-mtp",
        "lfm2",
        "deci",
        "glm4",
    ):
        stats = stats_of(tiny(arch))
        finding = run_preflight(gguf_info(tiny(arch)), settings_of(128), stats, stats.model)[0]
        assert (finding.status, finding.message.split(":")[0]) == (Status.OK, "they are of this model")


@pytest.fixture(scope="module")
def llama_info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return gguf_info(make_tiny_model("llama", tmp_path_factory.mktemp("tiny-llama")))


def test_an_architecture_that_has_not_been_tested(llama_info: ModelInfo) -> None:
    info = replace(llama_info, architecture="novel")
    findings = run_preflight(info, settings_of(128, allow_untested=False), None, None)
    assert failures(findings) == {"architecture": UnsupportedModelError}
    with pytest.raises(UnsupportedModelError, match="'novel'.*allow_untested"):
        raise_failures(findings)
    findings = run_preflight(info, settings_of(128, allow_untested=True), None, None)
    assert [f.status for f in findings if f.name == "architecture"] == [Status.WARN]
    raise_failures(findings)


def test_a_model_without_full_attention(tiny: Callable[[str], pathlib.Path]) -> None:
    findings = run_preflight(gguf_info(tiny("lfm2-sliding")), settings_of(128), None, None)
    assert failures(findings) == {"layers": UnsupportedModelError}


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"n_head": 2, "n_head_kv": 1}, "query heads: statistics 2, model 4 (layers 1)"),
        ({"n_rot": 16}, "n_rot: statistics 16, model 32 (layers 1)"),
        ({"interleaved": False}, "rotated pairs: statistics halves, model neighbours (layers 1)"),
        ({"layer": 7}, "layers with full attention: statistics 3 (0, 2, 7), model 3 (0-2)"),
    ],
)
def test_each_fact_of_statistics_is_compared(
    tiny: Callable[[str], pathlib.Path], change: dict[str, Any], fact: str
) -> None:
    stats = stats_of(tiny("llama"))
    layers = sorted(
        (stats.layers[0], replace(stats.layers[1], **change), stats.layers[2]), key=lambda layer: layer.layer
    )
    findings = run_preflight(
        gguf_info(tiny("llama")), settings_of(128), replace(stats, layers=tuple(layers)), stats.model
    )
    assert failures(findings) == {"statistics": StatsError}
    assert fact in findings[0].message


def test_another_file_of_the_same_shape(tiny: Callable[[str], pathlib.Path]) -> None:
    stats = stats_of(tiny("llama"))
    other = ModelIdentity("Other", "llama", "ab" * 32)
    findings = run_preflight(gguf_info(tiny("llama")), settings_of(128), stats, other)
    assert failures(findings) == {"statistics": StatsError}
    assert "shapes and rotation agree" in findings[0].message
    # a file on a server: nobody knows
    findings = run_preflight(gguf_info(tiny("llama")), settings_of(128), stats, None)
    assert findings[0].status is Status.WARN


def test_without_a_budget_only_context_and_memory_are_checked(llama_info: ModelInfo) -> None:
    info = replace(llama_info, architecture="novel", has_alibi=True)
    assert [f.name for f in run_preflight(info, PreflightSettings(CacheOptions()), None, None)] == ["context", "memory"]


def test_a_scaled_budget_is_what_memory_is_counted_for(gemma3: pathlib.Path) -> None:
    info = gguf_info(gemma3)
    plain = run_preflight(info, settings_of(1024, n_ctx=8192), None, None)
    scaled = run_preflight(info, settings_of(1024, n_ctx=8192, scale_budget_by_attention=True), None, None)
    assert [f.message for f in plain if f.name == "memory"] != [f.message for f in scaled if f.name == "memory"]
    assert "raises the budget of 1,024 to 6,997" in next(f.message for f in scaled if f.name == "scaling")
    with Llama(gemma3, budget=1024, n_ctx=8192, mode="recent", scale_budget_by_attention=True) as llm:
        assert llm.budget == 6997


def test_all_failures_are_told_at_once(llama_info: ModelInfo) -> None:
    info = replace(llama_info, has_alibi=True)
    findings = run_preflight(info, settings_of(20, memory=1000), StatsError("the statistics 'x' are damaged"), None)
    assert list(failures(findings)) == ["statistics", "layers", "budget", "memory"]
    with pytest.raises(StatsError, match="damaged; .*ALiBi.*; .*too small.*; .*more than"):
        raise_failures(findings)


def test_the_first_eviction_is_where_the_check_says(tiny: Callable[[str], pathlib.Path]) -> None:
    for n_ctx, evictions in ((159, 0), (160, 1)):
        with Llama(tiny("llama"), budget=128, interval=32, mode="recent", n_ctx=n_ctx) as llm:
            llm.logprobs(list(range(n_ctx)))
            assert llm.kv_stats()["evictions"] == evictions
        findings = run_preflight(gguf_info(tiny("llama")), settings_of(128, interval=32, n_ctx=n_ctx), None, None)
        assert [f.status is Status.OK for f in findings if f.name == "budget"] == [bool(evictions)]
