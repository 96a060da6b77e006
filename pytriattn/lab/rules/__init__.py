"""The rules, by name. An experimental one is a function that scores the keys of a layer; to add it, write its file and
a line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytriattn.lab.errors import LabError
from pytriattn.lab.rules.base import Rule
from pytriattn.lab.rules.key_diff import key_diff
from pytriattn.lab.rules.norms import key_norm, value_norm
from pytriattn.lab.rules.published_score import inverse, no_norm, no_trig, one_offset
from pytriattn.lab.rules.random_per_head import random_per_head
from pytriattn.lab.rules.vase_dkv import vase_dkv
from pytriattn.options.eviction import KeyScoreOptions

__all__ = ["DEFAULT_RULES", "QUICK_RULES", "RULES", "find_rules", "register_rule"]

PINNED = "+pinned"


def _ablation(name: str, summary: str, key_score: KeyScoreOptions) -> Rule:
    return Rule(name, summary, "fitted", needs_stats=True, settings={"key_score": key_score})


_KNOWN = (
    Rule("full", "everything", None),
    Rule("recent", "the newest keys", "recent"),
    Rule("random", "a random set, the same for all heads", "random"),
    Rule("random_per_head", "a random set for each head", score=random_per_head),
    Rule("inverse", "the worst by the published score", score=inverse, needs_stats=True),
    Rule("value_norm", "the longest values", score=value_norm),
    Rule("key_norm", "the shortest keys", score=key_norm),
    Rule("key_diff", "the keys least like the others", score=key_diff),
    Rule("vase_dkv", "long keys and values in random directions", score=vase_dkv),
    Rule("fitted", "what is expected, foreseen and seen to be looked for, times the value", "fitted", needs_stats=True),
    Rule(
        "fitted_asked",
        "the same, and what the question looks for, which stands at the end of the prompt",
        "fitted",
        needs_stats=True,
        reads_question=True,
    ),
    Rule(
        "oracle",
        "fitted, with the document's own questions as standing questions: a bound for what they can do",
        "fitted",
        needs_stats=True,
        knows_questions=True,
    ),
    Rule(
        "reread",
        "fitted, with a second reading of each interval in place of what the fit expects",
        "fitted",
        needs_stats=True,
        settings={"reread": True},
    ),
    _ablation("no_standing", "fitted without the standing questions", KeyScoreOptions(standing_weight=0.0)),
    _ablation("no_retrieval", "fitted with all heads as retrieval heads", KeyScoreOptions(retrieval_share=1.0)),
    _ablation("no_received", "fitted without received attention", KeyScoreOptions(use_received=False)),
    _ablation("no_fit", "fitted without expected attention", KeyScoreOptions(use_fit=False)),
    _ablation("no_value", "fitted without the norm of values", KeyScoreOptions(value_power=0.0)),
    Rule("per_layer_head", "the best by the published score, for each head", "per_layer_head", needs_stats=True),
    Rule("per_head", "the best by its mean over layers", "per_head", needs_stats=True),
    Rule(
        "published",
        "per_head with the prompt protected, as its scripts do",
        "per_head",
        needs_stats=True,
        is_pinned=True,
    ),
    Rule("no_trig", "per_layer_head without the trigonometric part", score=no_trig, needs_stats=True),
    Rule("no_norm", "per_layer_head without the norm part", score=no_norm, needs_stats=True),
    Rule("one_offset", "per_layer_head for the next token alone", score=one_offset, needs_stats=True),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _KNOWN}
DEFAULT_RULES = (
    "full",
    "recent",
    "random_per_head",
    "inverse",
    "value_norm",
    "vase_dkv",
    "per_layer_head",
    "published",
    "fitted",
)
_PINNED_IN_ALL = tuple(
    name + PINNED for name in ("recent", "random_per_head", "value_norm", "vase_dkv", "per_layer_head")
)
QUICK_RULES = ("full", "recent", "random", "random_per_head", "inverse", "value_norm", "per_layer_head", "fitted")


def register_rule(rule: Rule) -> None:
    """Make a rule known by its name, in this process.

    Raises:
        LabError: there is a rule of this name already, or the name has characters other than letters, digits, ``_``
            and ``-``.
    """
    if rule.name in RULES:
        raise LabError(f"there is a rule {rule.name!r} already; give this one another name")
    if not rule.name.replace("_", "").replace("-", "").isalnum():
        raise LabError(f"a rule cannot be called {rule.name!r}; use letters, digits, '_' and '-'")
    RULES[rule.name] = rule


def find_rules(names: Sequence[str]) -> list[Rule]:
    """Return rules by name. ``all`` stands for every rule, and for the most important ones with the prompt protected.

    Raises:
        LabError: a name is unknown, or none is given.
    """
    wanted: list[str] = []
    for name in names:
        wanted += [*RULES, *_PINNED_IN_ALL] if name == "all" else [name]
    if not wanted:
        raise LabError(f"no rule is named; there are {', '.join(RULES)}")
    return [_find(name) for name in dict.fromkeys(wanted)]


def _find(name: str) -> Rule:
    base = name.removesuffix(PINNED)
    if base not in RULES or (base == "full" and base != name):
        raise LabError(
            f"the rule {name!r} is unknown; there are {', '.join(RULES)}, and the same with '{PINNED}' behind (but "
            f"for full)"
        )
    rule = RULES[base]
    if base == name:
        return rule
    return replace(rule, name=name, summary=f"{rule.summary}; the prompt is protected", is_pinned=True)
