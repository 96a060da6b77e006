"""What a rule is: a score for each key of a layer; the highest are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pytriattn.lab.errors import LabError
from pytriattn.stats.layer_stats import LayerStats

__all__ = [
    "Choose",
    "Chooser",
    "Given",
    "Kept",
    "LayerView",
    "Rule",
    "Score",
    "View",
    "check_kept",
    "chooser_of",
    "keep_best",
]

Kept = list[npt.NDArray[np.bool_]]
"""For each layer bool [n_head_kv, n_keys]: which keys stay."""


class LayerView(Protocol):
    """One layer of a cache, as a rule sees it."""

    @property
    def layer(self) -> int:
        """Index in the model."""

    @property
    def n_head_kv(self) -> int:
        """KV heads."""

    def keys(self) -> npt.NDArray[np.float32]:
        """After RoPE: [n_head_kv, n_keys, head_dim]."""

    def values(self) -> npt.NDArray[np.float32]:
        """[n_head_kv, n_keys, head_dim_v]."""

    def origins(self) -> npt.NDArray[np.int32]:
        """Positions of the tokens that each head's keys come from: [n_head_kv, n_keys]."""


class View(Protocol):
    """A cache before an eviction, as a rule sees it."""

    @property
    def position(self) -> int:
        """Of the next token."""

    @property
    def n_keep(self) -> int:
        """Keys that each head has to keep, protected ones included."""

    @property
    def is_protected(self) -> npt.NDArray[np.bool_]:
        """Keys that must stay (sinks, window, pinned prompt): [n_keys]."""

    @property
    def layers(self) -> Sequence[LayerView]:
        """The layers with full attention."""


@dataclass(frozen=True)
class Given:
    """What a rule may use besides the cache.

    Attributes:
        seed: the seed of what the rule draws by chance.
        stats: layer index -> statistics of its queries; empty unless the rule needs them.
        memory: what a rule notes down from one eviction of a document to the next; empty when a document begins.
    """

    seed: int = 0
    stats: Mapping[int, LayerStats] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict)

    def rng(self, view: View, layer: LayerView) -> np.random.Generator:
        """Return a generator that is another one for each eviction and layer."""
        return np.random.default_rng([self.seed, view.position, layer.layer])


Score = Callable[[LayerView, View, Given], npt.NDArray[np.floating]]
"""Scores of a layer's keys, [n_head_kv, n_keys]; the highest are kept. Those of protected keys do not matter."""
Choose = Callable[[View, Given], Kept]
"""Chooses the keys of all layers at once, for rules whose heads or layers do not choose alone."""
Chooser = Callable[[View], Kept]


@dataclass(frozen=True)
class Rule:
    """A rule for keeping keys.

    Attributes:
        name: what it is called on the command line and in results.
        summary: one line on what it keeps.
        mode: the engine's mode; None: the full cache, nothing is evicted.
        score: returns the scores of a layer's keys, float [n_head_kv, n_keys]; the keys with the highest are kept. A
            rule with mode ``custom`` has this or `choose`.
        choose: returns which keys stay, bool [n_head_kv, n_keys] for each layer.
        needs_stats: whether it scores with statistics of queries.
        is_pinned: whether a document's prompt is protected.
        reads_question: whether it must see the question when it reads the text; the text is then read anew for each
            question.
        knows_questions: whether the document's own questions are its standing questions, read alone before the text.
        settings: more arguments of `Llama`.
    """

    name: str
    summary: str
    mode: str | None = "custom"
    score: Score | None = None
    choose: Choose | None = None
    needs_stats: bool = False
    is_pinned: bool = False
    reads_question: bool = False
    knows_questions: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def keep_best(view: View, score: Callable[[LayerView], npt.NDArray[np.floating]]) -> Kept:
    """Return for each head the protected keys and those with the highest scores, as many as must be kept; of keys with
    equal scores the newer.

    Raises:
        LabError: there are not as many scores as keys, or one is not a number.
    """
    protected = np.asarray(view.is_protected)
    free = np.flatnonzero(~protected)
    n_free = view.n_keep - int(protected.sum())
    kept = []
    for layer in view.layers:
        scores = np.asarray(score(layer))
        if scores.shape != (layer.n_head_kv, len(protected)):
            raise LabError(
                f"it gives scores of shape {list(scores.shape)} for layer {layer.layer}; give [{layer.n_head_kv}, "
                f"{len(protected)}], "
                "one for each KV head and key"
            )
        candidates = scores[:, free]
        if np.isnan(candidates).any():
            raise LabError(f"a score of layer {layer.layer} is not a number; give finite scores")
        marks = np.repeat(protected[None], layer.n_head_kv, axis=0)
        # reversed and stable: of equal scores the newer key comes first
        order = np.argsort(-candidates[:, ::-1], axis=1, kind="stable")[:, :n_free]
        np.put_along_axis(marks, free[::-1][order], True, axis=1)
        kept.append(marks)
    return kept


def check_kept(view: View, kept: Kept) -> Kept:
    """Return what a rule keeps.

    Raises:
        LabError: a head does not keep as many keys as it has to, or loses a protected one.
    """
    protected = np.asarray(view.is_protected)
    if len(kept) != len(view.layers):
        raise LabError(f"it keeps keys of {len(kept)} layers; give an array for each of the {len(view.layers)}")
    for layer, marks in zip(view.layers, kept, strict=True):
        shape = (layer.n_head_kv, len(protected))
        if np.shape(marks) != shape or np.asarray(marks).dtype != np.bool_:
            raise LabError(
                f"it gives {np.asarray(marks).dtype} {list(np.shape(marks))} for layer {layer.layer}; give bool "
                f"{list(shape)}"
            )
        for head, row in enumerate(marks):
            if row.sum() != view.n_keep or not row[protected].all():
                raise LabError(
                    f"head {head} of layer {layer.layer} keeps {row.sum()} keys, of the {protected.sum()} protected "
                    f"ones "
                    f"{row[protected].sum()}; it must keep {view.n_keep}, all protected ones among them"
                )
    return kept


def chooser_of(rule: Rule, given: Given) -> Chooser:
    """Return what the engine asks at each eviction.

    Raises:
        LabError: the rule has neither scores nor a choice; or (from the chooser) what it gives does not fit. It names
            the rule.
    """
    score, choose_all = rule.score, rule.choose
    if (score is None) == (choose_all is None):
        raise LabError(
            f"the rule {rule.name!r} with mode {rule.mode!r} needs either a score or a choose function; give it one"
        )

    def choose(view: View) -> Kept:
        try:
            if choose_all is not None:
                return check_kept(view, choose_all(view, given))
            assert score is not None
            return keep_best(view, lambda layer: score(layer, view, given))
        except LabError as error:
            raise LabError(f"the rule {rule.name!r}: {error}") from error

    return choose
