"""Options that are wrong, or do not fit together: an exception that names the value, before the model is looked for
where that can be.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from pytriattn import BudgetError, BudgetWarning, ContextError, EvictionSettings, KeyScoreOptions, Llama


def test_settings_that_do_not_fit_together(smollm2: pathlib.Path) -> None:
    unfit: list[tuple[dict[str, Any], str]] = [
        ({"budget": 36}, r"budget is 36.*n_sink \(4\) \+ window \(32\) \+ 1 need at least 37"),
        ({"budget": 68, "mode": "recent"}, r"budget is 68.*n_sink \(4\) \+ window \(64\) \+ 1 need at least 69"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": -5}, "budget is -5"),
        ({"budget": 512, "window": 0}, "window is 0"),
        ({"budget": 512, "n_sink": -1}, "n_sink is -1"),
        ({"budget": 512, "interval": 0}, "interval is 0"),
        ({"budget": 512, "mode": "best"}, "mode 'best' is unknown"),
        *(
            ({"budget": 512, "mode": mode, "flash_attn": False}, "flash attention")
            for mode in ("per_layer_head", "per_head", "per_layer")
        ),
    ]
    for options, message in unfit:
        # the model is not even looked for
        with pytest.raises(BudgetError, match=message):
            Llama("nowhere.gguf", **options)
    unknown: list[tuple[dict[str, Any], str]] = [
        ({"prefill": "some"}, "prefill is 'some'"),
        ({"flash_attn": "yes"}, "flash_attn is 'yes'"),
        ({"n_ctx": -1}, "n_ctx is -1"),
        ({"type_v": "q8_0", "flash_attn": False}, "type_v='q8_0' needs flash attention"),
    ]
    for options, message in unknown:
        with pytest.raises(ContextError, match=message):
            Llama("nowhere.gguf", **options)
    impossible: list[tuple[dict[str, Any], str]] = [
        ({"type_k": "f8"}, "type_k is 'f8', it must be one of f32"),
        ({"n_batch": 0}, "at least 1"),
        ({"n_ctx": 2**40}, "counts positions up to"),
        ({"n_ctx": 2**63 - 1, "budget": 512, "mode": "recent"}, "counts positions up to"),
        ({"n_threads": 100_000}, "n_threads is 100000.*512"),
        ({"n_threads": -1}, "n_threads is -1"),
    ]
    for options, message in impossible:
        with pytest.raises(ContextError, match=message):
            Llama(smollm2, **options)
    with pytest.raises(TypeError, match="n_context"):
        Llama(smollm2, n_context=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("rope_scaling_type", "ntk", "rope_scaling_type is 'ntk'.*none, linear, yarn, longrope"),
        ("rope_scaling_type", 7, "rope_scaling_type is 7"),
        ("rope_freq_base", -1.0, "rope_freq_base is -1.0"),
        ("rope_freq_scale", float("nan"), "rope_freq_scale is nan"),
        ("yarn_beta_fast", float("inf"), "yarn_beta_fast is inf"),
        ("yarn_orig_ctx", -5, "yarn_orig_ctx is -5"),
    ],
)
def test_rope_settings(tiny: Callable[[str], pathlib.Path], setting: str, value: object, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        Llama(tiny("llama"), n_ctx=256, **{setting: value})


def test_a_budget_that_leaves_little_to_choose_is_warned_of() -> None:
    settings = EvictionSettings(256, window=64)
    assert settings.scarcity() is None
    assert "raise the budget or lower window" in (EvictionSettings(70, window=64).scarcity() or "")
    assert EvictionSettings(70, "recent", window=64).scarcity() is None  # whose newest keys are all that it keeps
    settings.check_prompt(150)
    with pytest.warns(BudgetWarning, match="prompt of 170 tokens.*budget of 256"):
        settings.check_prompt(170)


def test_what_leaves_little_to_choose_is_warned_of_when_a_model_is_opened(
    tiny: Callable[[str], pathlib.Path], recwarn: pytest.WarningsRecorder
) -> None:
    Llama(tiny("llama"), budget=128, window=64, mode="random", n_ctx=1024).close()
    assert not recwarn.list
    with pytest.warns(BudgetWarning, match=r"n_sink \(4\) and window \(120\) leave little of the budget of 128"):
        Llama(tiny("llama"), budget=128, window=120, mode="random", n_ctx=1024).close()


def test_a_protected_prompt_that_leaves_little_is_warned_of_when_it_is_read(
    tiny: Callable[[str], pathlib.Path],
) -> None:
    with (
        Llama(tiny("llama"), budget=128, window=16, mode="random", n_ctx=1024, protect_prompt=True) as llm,
        pytest.warns(BudgetWarning, match="prompt of 105 tokens and the window of 16 leave little"),
    ):
        llm.generate(list(range(1, 106)), 1)


def test_the_default_window_grows_with_the_budget() -> None:
    assert [EvictionSettings(budget).window for budget in (100, 200, 1000, 4096)] == [32, 50, 250, 1024]
    assert EvictionSettings(4096, "per_layer_head").window == 64
    assert EvictionSettings(4096, window=10).window == 10


def test_key_score_options_show_all_that_they_consist_of() -> None:
    """What a person copies from the screen makes the same options again."""
    options = KeyScoreOptions(question_forward=3, question_foreseen=0.5, standing_questions=["who?"])
    names = [name for name, value in vars(KeyScoreOptions).items() if isinstance(value, property)]
    again = eval(repr(options), {"KeyScoreOptions": KeyScoreOptions})
    assert [getattr(again, name) for name in names] == [getattr(options, name) for name in names]
