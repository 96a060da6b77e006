"""Every rule keeps what must be kept, in exactly the number asked for, head by head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytriattn import LabError, Rule, register_rule
from pytriattn.lab.rules import DEFAULT_RULES, PINNED, RULES, find_rules
from pytriattn.lab.rules.base import chooser_of, keep_best
from pytriattn.options.eviction import MODES
from support.made_views import make_given, make_view

CUSTOM = [rule for rule in RULES.values() if rule.mode == "custom"]


@pytest.mark.parametrize("rule", CUSTOM, ids=lambda rule: rule.name)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), n_keys=st.integers(20, 80), n_free=st.integers(0, 8), n_sink=st.integers(0, 4))
def test_a_rule_keeps_what_must_stay_and_no_more(rule: Rule, seed: int, n_keys: int, n_free: int, n_sink: int) -> None:
    view = make_view(seed, n_keys, n_sink + 8 + n_free, n_sink=n_sink)
    choose = chooser_of(rule, make_given(seed))
    kept = choose(view)
    assert len(kept) == 2
    for marks in kept:
        assert marks.shape == (2, n_keys) and marks.dtype == np.bool_
        assert marks[:, view.is_protected].all()
        assert (marks.sum(axis=1) == view.n_keep).all()
    assert all(np.array_equal(a, b) for a, b in zip(kept, choose(view), strict=True)), "the same view, the same choice"


@pytest.mark.parametrize("rule", CUSTOM, ids=lambda rule: rule.name)
def test_heads_choose_for_themselves(rule: Rule) -> None:
    view = make_view(5, 200, 60)
    marks = [head for layer in chooser_of(rule, make_given(5))(view) for head in layer]
    assert len({head.tobytes() for head in marks}) == len(marks)


@pytest.mark.parametrize("name", ["random_per_head", "vase_dkv"])
def test_chance_is_another_one_at_each_eviction_and_seed(name: str) -> None:
    view, later = make_view(5, 200, 60), make_view(5, 200, 60)
    later.position += 128
    first = chooser_of(RULES[name], make_given(1))
    assert not np.array_equal(first(view)[0], first(later)[0])
    other = chooser_of(RULES[name], replace(make_given(1), seed=2))
    assert not np.array_equal(first(view)[0], other(view)[0])


def test_the_inverse_keeps_none_of_the_best() -> None:
    view = make_view(3, 100, 12 + 30)
    rule = RULES["inverse"]
    score = rule.score
    assert score is not None
    inverse = chooser_of(rule, make_given(3))(view)
    best = keep_best(view, lambda layer: -score(layer, view, make_given(3)))
    free = ~view.is_protected
    for worst, good in zip(inverse, best, strict=True):
        assert not (worst & good)[:, free].any()


def test_norm_rules_keep_the_longest_values_and_the_shortest_keys() -> None:
    view = make_view(3, 60, 14)
    layer = view.layers[0]
    layer.made_values[1, 30] *= 100
    layer.made_keys[0, 21] *= 0.001
    assert chooser_of(RULES["value_norm"], make_given())(view)[0][1, 30]
    assert chooser_of(RULES["key_norm"], make_given())(view)[0][0, 21]
    layer.made_keys[:, :] = 1.0
    layer.made_keys[0, 25] = -1.0
    assert chooser_of(RULES["key_diff"], make_given())(view)[0][0, 25]


def test_of_equal_scores_the_newer_key_stays() -> None:
    view = make_view(1, 40, 15)
    marks = keep_best(view, lambda layer: np.zeros((layer.n_head_kv, 40)))[0]
    assert np.flatnonzero(marks[0]).tolist() == [0, 1, 2, 3, 29, 30, 31, *range(32, 40)]


def test_wrong_scores_are_refused_by_name() -> None:
    view = make_view(1, 40, 15)
    short = Rule("short", "too few", score=lambda layer, view, given: np.zeros((2, 39)))
    with pytest.raises(LabError, match=r"rule 'short'.*\[2, 39\] for layer 1; give \[2, 40\]"):
        chooser_of(short, make_given())(view)
    broken = Rule("broken", "NaN", score=lambda layer, view, given: np.full((2, 40), np.nan))
    with pytest.raises(LabError, match="rule 'broken'.*not a number"):
        chooser_of(broken, make_given())(view)
    with pytest.raises(LabError, match="'none' with mode 'custom' needs either a score or a choose"):
        chooser_of(Rule("none", "nothing"), make_given())


def test_a_rule_that_chooses_for_all_layers_is_held_to_the_same() -> None:
    view = make_view(1, 40, 15)
    right = chooser_of(RULES["key_norm"], make_given())(view)

    def chosen(*kept: np.ndarray) -> None:
        chooser_of(Rule("mine", "", choose=lambda view, given: list(kept)), make_given())(view)

    chosen(*right)
    with pytest.raises(LabError, match="rule 'mine': it keeps keys of 1 layers; give an array for each of the 2"):
        chosen(right[0])
    with pytest.raises(LabError, match=r"int64 \[2, 40\] for layer 3; give bool \[2, 40\]"):
        chosen(right[0], right[1].astype(np.int64))
    more, lost = right[1].copy(), right[1].copy()
    more[1, np.flatnonzero(~more[1])[0]] = True
    with pytest.raises(LabError, match="head 1 of layer 3 keeps 16 keys, of the 12 protected ones 12; it must keep 15"):
        chosen(right[0], more)
    lost[0, 0] = False
    lost[0, np.flatnonzero(~lost[0])[-1]] = True
    with pytest.raises(LabError, match="head 0 of layer 3 keeps 15 keys, of the 12 protected ones 11"):
        chosen(right[0], lost)


def test_rules_are_found_by_name() -> None:
    assert [rule.name for rule in find_rules(DEFAULT_RULES)] == list(DEFAULT_RULES)
    pinned = find_rules(["value_norm" + PINNED])[0]
    assert pinned.is_pinned and pinned.score is RULES["value_norm"].score
    assert {rule.name for rule in find_rules(["all"])} >= {*RULES, "recent+pinned", "per_layer_head+pinned"}
    for rule in RULES.values():
        assert rule.mode is None or rule.mode == "custom" or rule.mode in MODES
    for name in ("best", "full+pinned", ""):
        with pytest.raises(LabError, match="unknown; there are full, recent"):
            find_rules([name])
    with pytest.raises(LabError, match="no rule is named"):
        find_rules([])


def test_a_rule_of_ones_own_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytriattn.lab.rules.RULES", dict(RULES))
    mine = Rule("mine", "nothing special", score=RULES["value_norm"].score)
    register_rule(mine)
    assert find_rules(["mine"]) == [mine]
    with pytest.raises(LabError, match="already"):
        register_rule(mine)
    with pytest.raises(LabError, match="cannot be called"):
        register_rule(Rule("a,b", ""))
