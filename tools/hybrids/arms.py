"""What is compared: rules for keeping keys, their ingredients, and which part of a key a rule looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pytriattn import KeyScoreOptions, TriAttentionStats
from pytriattn.eviction.steps import group_scores, score_keys
from pytriattn.lab.rules import RULES
from pytriattn.lab.rules.base import Given, LayerView, Rule, View
from pytriattn.stats.layer_stats import LayerStats

__all__ = ["ARMS", "Arm"]


def _all(stats: TriAttentionStats) -> TriAttentionStats:
    return stats


def rotated_fit(stats: TriAttentionStats) -> TriAttentionStats:
    """Return statistics whose fit does not look at the dimensions of a key that RoPE leaves alone."""
    return replace(stats, layers=tuple(_rotated_layer(layer) for layer in stats.layers))


def _rotated_layer(layer: LayerStats) -> LayerStats:
    # features: 1; ln|v|; ln|k|; the key [head_dim]; magnitudes of its bands [head_dim / 2]; the value
    assert layer.fit is not None and layer.rot_begin == 0
    first, n = 3, layer.head_dim
    fit = layer.fit.copy()
    fit[:, first + layer.n_rot : first + n] = 0.0
    fit[:, first + n + layer.n_rot // 2 : first + n + n // 2] = 0.0
    return replace(layer, fit=fit)


def rotated_score(layer: LayerView, view: View, given: Given) -> npt.NDArray[np.floating]:
    """Score as mode ``per_layer_head`` does, by the bands that RoPE rotates alone."""
    keys = layer.keys().transpose(1, 0, 2)
    scores = score_keys(given.stats[layer.layer], keys, view.position, use_unrotated=False)
    return group_scores(scores, layer.n_head_kv, view.is_protected)


@dataclass(frozen=True)
class Arm:
    """One arm of the comparison.

    Attributes:
        rule: how keys are chosen.
        n_calibration: statistics are of so many tokens of text like that of the documents; 0: of the text that ships
            with the package, as `Llama` measures them by itself.
        change: what becomes of the statistics.
        is_scaled: the kept share b becomes 1 - (1 - b) * n_attention / n_layer.
        has_wide_window: the window is that of mode ``fitted``.
        is_everywhere: it is measured at every share, else at those of 75 % and less.
    """

    rule: Rule
    n_calibration: int = 4096
    change: Callable[[TriAttentionStats], TriAttentionStats] = field(default=_all)
    is_scaled: bool = False
    has_wide_window: bool = False
    is_everywhere: bool = False


# Mode fitted as it was when this was measured. These models have learned nothing but their own notation, in which the
# standing questions ask for nothing.
_SCORE = KeyScoreOptions(
    received_weight=2.0,
    question_weight=10.0,
    standing_weight=0.0,
    value_power=0.5,
    received_value_power=0.5,
    stride=4,
    question_forward=8,
)


def _fitted(name: str, summary: str, **settings: object) -> Rule:
    return Rule(name, summary, "fitted", needs_stats=True, settings={"key_score": _SCORE, **settings})


def _pinned(name: str) -> Rule:
    return replace(RULES[name], name=f"{name}+pinned", is_pinned=True)


def _arms() -> dict[str, Arm]:
    fitted, asked = (replace(RULES[name], settings={"key_score": _SCORE}) for name in ("fitted", "fitted_asked"))
    found = [Arm(RULES["full"], is_everywhere=True)]
    found += [Arm(rule, is_everywhere=True) for rule in (fitted, asked)]
    names = ("per_layer_head", "published", "random_per_head", "random", "recent")
    found += [Arm(RULES[name], is_everywhere=True) for name in names]
    found += [Arm(replace(fitted, name="fitted+pinned", is_pinned=True))]
    found += [Arm(_pinned(name)) for name in ("per_layer_head", "random_per_head", "recent")]
    weigh: Mapping[str, KeyScoreOptions] = {
        "fitted_without_fit": replace(_SCORE, use_fit=False),
        "fitted_without_received": replace(_SCORE, use_received=False),
        "fitted_without_value": replace(_SCORE, value_power=0.0, received_value_power=0.0),
    }
    found += [Arm(_fitted(name, name.replace("_", " "), key_score=options)) for name, options in weigh.items()]
    found += [
        # what is evicted at once is read again at once, so this needs the usual interval
        Arm(_fitted("fitted_reread", "what is new is read once more before each eviction", reread=True, interval=128)),
        Arm(replace(fitted, name="fitted_bundled", summary="statistics of the bundled text"), n_calibration=0),
        Arm(replace(fitted, name="fitted_512", summary="statistics of 512 tokens"), n_calibration=512),
        Arm(replace(fitted, name="fitted_rotated", summary="the fit sees rotated dimensions"), change=rotated_fit),
        Arm(replace(fitted, name="fitted_scaled", summary="scale_budget_by_attention"), is_scaled=True),
        Arm(Rule("per_layer_head_rotated", "rotated bands alone", score=rotated_score, needs_stats=True)),
        Arm(replace(RULES["published"], name="published_scaled", summary="scale_budget_by_attention"), is_scaled=True),
        Arm(replace(RULES["recent"], name="recent_scaled", summary="scale_budget_by_attention"), is_scaled=True),
        Arm(
            Rule("recipe", "rotated bands, prompt pinned", score=rotated_score, needs_stats=True, is_pinned=True),
            is_scaled=True,
        ),
        Arm(
            replace(RULES["per_layer_head"], name="per_layer_head_wide", summary="with the window of mode fitted"),
            has_wide_window=True,
        ),
        Arm(Rule("per_layer", "one set for the heads of a layer", "per_layer", needs_stats=True)),
        Arm(Rule("global", "one set for all layers and heads", "global", needs_stats=True)),
    ]
    return {arm.rule.name: arm for arm in found}


ARMS = _arms()
"""All arms by name; `full` first."""
