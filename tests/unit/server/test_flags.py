"""Our flags among llama-server's own."""

import pathlib

import pytest

from pytriattn import BudgetError
from pytriattn.server.flags import FLAGS, budget_flags, split_flags, take_flags, usage
from pytriattn.server.program import page_arguments, says_threads


def test_other_arguments_stay_as_they_are() -> None:
    theirs = ["-m", "a model.gguf", "-c", "4096", "--temp", "-1", "--alias=b", "--no-webui"]
    ours = ["--triattention-budget", "512", "--triattention-mode=recent"]
    found, rest = split_flags([*theirs[:3], *ours, *theirs[3:]], {})
    assert found == {"budget": "512", "mode": "recent"}
    assert rest == theirs


def test_a_flag_is_worth_more_than_its_variable() -> None:
    variables = {"LLAMA_ARG_TRIATTENTION_BUDGET": "256", "LLAMA_ARG_TRIATTENTION_WINDOW": "32"}
    found, _ = split_flags(["--triattention-budget", "512"], variables)
    assert found == {"budget": "512", "window": "32"}


def test_taking_flags_out() -> None:
    arguments = ["-hf", "a/b", "-c", "8", "--hf-repo=c/d", "-x", "-hf"]
    found, rest = take_flags(arguments, ("-hf", "--hf-repo"))
    assert found == [("-hf", "a/b"), ("--hf-repo", "c/d"), ("-hf", "")]
    assert rest == ["-c", "8", "-x"]


def test_settings() -> None:
    found, _ = split_flags(
        ["--triattention-budget", "512", "--triattention-sinks", "0", "--triattention-scale-budget"], {}
    )
    flags = budget_flags(found)
    assert flags.eviction is not None and flags.may_fall_back
    assert (flags.eviction.budget, flags.eviction.mode, flags.eviction.n_sink) == (512, "fitted", 0)
    assert flags.eviction.scale_budget_by_attention and not flags.allow_untested
    assert budget_flags({}).eviction is None
    assert not budget_flags({"budget": "512", "mode": "fitted"}).may_fall_back


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--triattention-budgets", "5"], "there is no flag --triattention-budgets"),
        (["--triattention-budget"], "--triattention-budget needs a value"),
        (["--triattention-budget", "many"], "--triattention-budget is 'many', it must be a whole number"),
        (["--triattention-window", "64"], "--triattention-window changes nothing without --triattention-budget"),
        (["--triattention-budget", "512", "--triattention-mode", "best"], "--triattention-mode is 'best'"),
    ],
)
def test_bad_flags(arguments: list[str], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        budget_flags(split_flags(arguments, {})[0])


def test_the_usage_names_every_flag() -> None:
    assert all(f"--triattention-{flag.name}" in usage() and flag.variable in usage() for flag in FLAGS)


def test_the_web_page_is_served_if_it_was_built(tmp_path: pathlib.Path) -> None:
    assert page_arguments(["-m", "x"], tmp_path, {}) == []
    (tmp_path / "index.html").write_text("<html>")
    assert page_arguments(["-m", "x"], tmp_path, {}) == ["--path", str(tmp_path)]
    for flags in (["--path", "elsewhere"], ["--path=elsewhere"], ["--no-ui"]):
        assert page_arguments(flags, tmp_path, {}) == []
    assert page_arguments([], tmp_path, {"LLAMA_ARG_STATIC_PATH": "elsewhere"}) == []


def test_whoever_names_a_number_of_threads_gets_it() -> None:
    for arguments in (["-t", "2"], ["--threads=2"], ["-m", "m.gguf", "--threads-batch", "4"]):
        assert says_threads(arguments, {})
    assert says_threads([], {"LLAMA_ARG_THREADS": "3"})
    assert not says_threads(["-m", "m.gguf", "--threads-http", "2"], {"LLAMA_ARG_THREADS": ""})
