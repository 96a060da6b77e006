"""The rules of architectures are those of the pinned llama.cpp."""

from __future__ import annotations

import re

from pytriattn.model_info.architecture_rules import rules_of
from support.paths import ROOT

UPSTREAM = ROOT / "vendor" / "llama.cpp" / "upstream" / "src"


def enum_names() -> dict[str, str]:
    text = (UPSTREAM / "llama-arch.cpp").read_text()
    return dict(re.findall(r"\{ (LLM_ARCH_\w+), +\"([^\"]+)\" +\}", text))


DRAFTS = {"eagle3", "dflash", "gemma4-assistant", "pockettts", "gptj", "(unknown)"}
"""Architectures without rules here: they need another model beside them, or llama.cpp knows no more than their name."""


def test_every_architecture_of_llama_cpp_has_rules() -> None:
    for name in enum_names().values():
        rules = rules_of(name)
        assert (rules is None) == (name in DRAFTS), name
        if rules is not None:
            assert (UPSTREAM / "models" / rules.source).exists() or name in ("llama-embed", "t5encoder"), name


def test_pairs_are_those_of_llama_cpp() -> None:
    text = (UPSTREAM / "llama-model.cpp").read_text()
    body = text[text.index("llama_rope_type llama_model_rope_type(") :]
    body = body[: body.index("\n}\n")]
    names, waiting, checked = enum_names(), [], 0
    for line in body.splitlines():
        if case := re.search(r"case (LLM_ARCH_\w+):", line):
            waiting.append(names.get(case[1], ""))
        kinds = set(re.findall(r"LLAMA_ROPE_TYPE_(\w+)", line))
        if not kinds:
            continue
        for name in waiting:
            rules = rules_of(name)
            # for Starcoder and for encoders a kind of RoPE stands there, but no graph uses it
            if rules is not None and rules.rope != "none":
                assert {kind.lower() for kind in kinds} == {rules.rope, rules.plain_rope} - {""}, name
                checked += 1
        waiting = []
    assert checked > 90
