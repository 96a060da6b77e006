"""What a rule is: a score for each key of a layer; the highest are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pytriattn.lab.errors import LabError
from pytriattn.stats.layer_stats import LayerStats

__all__ = ["Chooser", "Given", "Kept", "LayerView", "Rule", "Score", "View", "chooser_of", "keep_best"]

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
        seed: of what it draws by chance.
        stats: layer index -> statistics of its queries; empty unless the rule needs them.
    """

    seed: int = 0
    stats: Mapping[int, LayerStats] = field(default_factory=dict)

    def rng(self, view: View, layer: LayerView) -> np.random.Generator:
        """Return a generator that is another one for each eviction and layer."""
        return np.random.default_rng([self.seed, view.position, layer.layer])


Score = Callable[[LayerView, View, Given], npt.NDArray[np.floating]]
"""Scores of a layer's keys, [n_head_kv, n_keys]; the highest are kept. Those of protected keys do not matter."""
Chooser = Callable[[View], Kept]


@dataclass(frozen=True)
class Rule:
    """A rule for keeping keys.

    Attributes:
        name: what it is called on the command line and in results.
        summary: one line on what it keeps.
        mode: the engine's mode; None: the full cache, nothing is evicted.
        score: of a rule with mode ``custom``, which the engine asks at each eviction.
        needs_stats: whether it scores with statistics of queries.
        is_pinned: whether a document's prompt is never evicted.
        reads_question: whether it must see the question when it reads the text: then the text is read for each question.
        settings: more arguments of `Llama`.
    """

    name: str
    summary: str
    mode: str | None = "custom"
    score: Score | None = None
    needs_stats: bool = False
    is_pinned: bool = False
    reads_question: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def keep_best(view: View, score: Callable[[LayerView], npt.NDArray[np.floating]]) -> Kept:
    """Return for each head the protected keys and the best-scored others, as many as must be kept; of equal ones the newer.

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
                f"it gives scores of shape {list(scores.shape)} for layer {layer.layer}; give [{layer.n_head_kv}, {len(protected)}], "
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


def chooser_of(rule: Rule, given: Given) -> Chooser:
    """Return what the engine asks at each eviction.

    Raises:
        LabError: (the chooser) the rule's scores do not fit; it names the rule.
    """
    score = rule.score
    if score is None:
        raise LabError(f"the rule {rule.name!r} has mode {rule.mode!r} and no score; give it one, or another mode")

    def choose(view: View) -> Kept:
        try:
            return keep_best(view, lambda layer: score(layer, view, given))
        except LabError as error:
            raise LabError(f"the rule {rule.name!r}: {error}") from error

    return choose
