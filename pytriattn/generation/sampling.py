"""How the next token is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.generation.schemas.json_schema import grammar_of_schema
from pytriattn.session.session import Session

__all__ = ["LlamaGrammar", "LogitsProcessor", "SamplingParams"]

# Takes the tokens so far (int32 [n]) and the logits of the next one (float32 [n_vocab]); returns the logits to draw
# from.
LogitsProcessor = Callable[[npt.NDArray[np.int32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

_INF = math.inf
_LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, _INF),
    "dynatemp_range": (0.0, _INF),
    "dynatemp_exponent": (0.0, _INF),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "top_n_sigma": (-_INF, _INF),
    "repeat_penalty": (1e-6, 1e6),
    "frequency_penalty": (-_INF, _INF),
    "presence_penalty": (-_INF, _INF),
    "penalty_last_n": (-1, _INF),
    "dry_multiplier": (0.0, _INF),
    "dry_base": (0.0, _INF),
    "dry_allowed_length": (0, _INF),
    "dry_penalty_last_n": (-1, _INF),
    "mirostat_mode": (0, 2),
    "mirostat_tau": (0.0, _INF),
    "mirostat_eta": (0.0, _INF),
}
_WHOLE = ("top_k", "penalty_last_n", "dry_allowed_length", "dry_penalty_last_n", "mirostat_mode", "seed")
_COPIED = (*(name for name in _LIMITS if not name.endswith("_last_n")), "top_k", "ignore_eos")
# What other libraries call by these names.
_HINTS = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "tfs_z": "llama.cpp no longer has this sampler",
    "typical": "use typical_p",
    "typ_p": "use typical_p",
    "temp": "use temperature",
    "penalize_nl": "llama.cpp no longer has this setting",
    "stopping_criteria": "use stop, or stream=True and leave the loop",
    "suffix": "texts cannot be filled in",
    "model": "a Llama has one model",
}


class LlamaGrammar:
    """A grammar in llama.cpp's GBNF that the output has to follow, from its ``root`` rule.

    Attributes:
        text: the rules.

    Raises:
        ValueError: the rules are empty, or not text.
    """

    def __init__(self, text: str) -> None:
        """Take the rules; they are checked when they are first used with a model."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the grammar is {text!r}, it must be text that is not empty")
        self.text = text

    @classmethod
    def from_string(cls, grammar: str) -> LlamaGrammar:
        """Return a grammar from GBNF rules."""
        return cls(grammar)

    @classmethod
    def from_json_schema(cls, schema: str | Mapping[str, Any]) -> LlamaGrammar:
        """Return a grammar that admits the JSON values of a schema.

        Raises:
            GrammarError: a part of the schema has no equivalent in a grammar.
        """
        return cls(grammar_of_schema(schema))


@dataclass(frozen=True)
class SamplingParams:
    """Settings of llama.cpp's samplers, in the order in which they apply.

    Attributes:
        logit_bias: token id -> number that is added to its logit; ``-inf`` forbids the token.
        repeat_penalty: divides the logits of the last `penalty_last_n` tokens; 1: off.
        frequency_penalty: subtracted for each time that a token was among them; 0: off.
        presence_penalty: subtracted once if a token was among them; 0: off.
        penalty_last_n: how many tokens back penalties look; 0: off, -1: all.
        dry_multiplier: strength of DRY, which penalises tokens that would continue a repetition; 0: off.
        dry_base: DRY's penalty grows by this factor with each repeated token.
        dry_allowed_length: repetitions of up to so many tokens are free.
        dry_penalty_last_n: how many tokens back DRY looks; 0: off, -1: all.
        dry_sequence_breakers: texts that end a repetition.
        top_n_sigma: keep logits within so many standard deviations of the largest; 0 or less: off.
        top_k: keep the k likeliest tokens; 0: all.
        typical_p: keep the most typical tokens that have this probability together; 1: off.
        top_p: keep the likeliest tokens that have this probability together; 1: all.
        min_p: drop tokens less likely than this fraction of the likeliest one; 0: none.
        xtc_probability: how often XTC removes the likeliest tokens; 0: off.
        xtc_threshold: XTC removes the tokens above this probability, except the least likely of them.
        temperature: 0 always takes the likeliest token.
        dynatemp_range: temperature varies by this much with the entropy; 0: off.
        dynatemp_exponent: how entropy maps to temperature.
        mirostat_mode: 1 or 2: Mirostat in place of the samplers between penalties and temperature; 0: off.
        mirostat_tau: the surprise (-log2 p) of a token that Mirostat aims at, in bits.
        mirostat_eta: Mirostat's learning rate.
        samplers: names of llama.cpp's samplers in the order to apply, in place of the order given here.
        grammar: GBNF rules that the output has to follow, as text or `LlamaGrammar`.
        json_schema: a JSON schema that the output has to follow, as text or a mapping.
        logits_processor: a function that is called before each token is drawn, or several, called one after another. It
            takes the tokens so far (int32 [n]) and the logits (float32 [n_vocab]), and returns the logits to draw from.
        seed: the seed of drawing; None: a new one each time.
        ignore_eos: never draw a token that ends the text.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    samplers: Sequence[str] | None = None
    logit_bias: Mapping[int, float] | None = None
    grammar: str | LlamaGrammar | None = None
    json_schema: str | Mapping[str, Any] | None = None
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None
    seed: int | None = None
    ignore_eos: bool = False

    @classmethod
    def checked(cls, **values: Any) -> SamplingParams:
        """Return the settings with these values.

        Raises:
            TypeError: a name is unknown.
            ValueError: a value makes no sense.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            hint = _HINTS.get(unknown[0], f"besides the call's own there are {', '.join(sorted(known))}")
            raise TypeError(f"unknown argument {unknown[0]!r}: {hint}")
        params = cls(**values)
        params._check()
        return params

    def _check(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}, it must be a number from {low:g} to {high:g}")
        for name in _WHOLE:
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if not isinstance(value, (int, np.integer)) or not -(2**31) <= value < 2**32:
                raise ValueError(f"{name} is {value!r}, it must be a whole number")
        if self.grammar is not None and self.json_schema is not None:
            raise ValueError("give a grammar or a json_schema, not both")
        for name in ("dry_sequence_breakers", "samplers"):
            value = getattr(self, name) or ()
            if isinstance(value, str) or not all(isinstance(text, str) for text in value):
                raise ValueError(f"{name} is {value!r}, it must be a list of texts")
        for processor in self._processors():
            if not callable(processor):
                raise ValueError(f"logits_processor has {processor!r}, it must be a function")
        for token, bias in (self.logit_bias or {}).items():
            if not str(token).lstrip("-").isdigit() or not isinstance(bias, (int, float)) or math.isnan(bias):
                raise ValueError(f"logit_bias has {token!r}: {bias!r}, it must map token ids to numbers")

    def native_seed(self, answer: int = 0) -> int:
        """Return llama.cpp's seed of the n-th answer to a request; no seed and -1 are random for all of them."""
        first = core.RANDOM_SEED if self.seed is None else self.seed & 0xFFFFFFFF
        if first == core.RANDOM_SEED:
            return core.RANDOM_SEED
        return (first + answer) % core.RANDOM_SEED

    def to_native(self, n_ctx: int) -> core.SamplingSettings:
        """Return the same settings as llama.cpp takes them; -1 for "everywhere" becomes `n_ctx`."""
        settings = core.SamplingSettings()
        for name in _COPIED:
            setattr(settings, name, getattr(self, name))
        for name in ("penalty_last_n", "dry_penalty_last_n"):
            value = getattr(self, name)
            setattr(settings, name, n_ctx if value < 0 else value)
        settings.seed = self.native_seed()
        settings.dry_sequence_breakers = list(self.dry_sequence_breakers)
        if self.samplers is not None:
            settings.set_order(list(self.samplers))
        for token, bias in (self.logit_bias or {}).items():
            settings.add_logit_bias(int(token), float(bias))
        if self.grammar is not None:
            settings.set_grammar("user", self.grammar.text if isinstance(self.grammar, LlamaGrammar) else self.grammar)
        elif self.json_schema is not None:
            settings.set_grammar("user", LlamaGrammar.from_json_schema(self.json_schema).text)
        return settings

    def make_sampler(self, llm: Session, prompt: npt.NDArray[np.int32]) -> core.Sampler:
        """Return a sampler that knows the last tokens of `prompt`, int32 [n_tokens], for its penalties.

        Raises:
            GrammarError: the grammar or the JSON schema cannot be used.
            InvalidTokenError: `logit_bias` names a token that is not in the vocabulary.
        """
        return self.prepare(llm, self.to_native(llm.n_ctx()), prompt)

    def prepare(self, llm: Session, settings: core.SamplingSettings, prompt: npt.NDArray[np.int32]) -> core.Sampler:
        """Return a sampler with these native settings that knows the last tokens of `prompt`, int32 [n_tokens].

        Negative numbers, which stand for images, are left out.
        """
        sampler = llm.make_sampler(settings)
        prompt = prompt[prompt >= 0]
        has_dry = self.dry_multiplier > 0
        looks_back = max(settings.penalty_last_n, settings.dry_penalty_last_n if has_dry else 0)
        for token in prompt[-looks_back:] if looks_back else []:
            sampler.accept(int(token))
        processors = self._processors()
        if processors:
            sampler.set_logits_processor(lambda *seen: _process(processors, *seen), prompt.tolist())
        return sampler

    def _processors(self) -> list[LogitsProcessor]:
        given = self.logits_processor
        return [] if given is None else [given] if callable(given) else list(given)


def _process(
    processors: Sequence[LogitsProcessor], tokens: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    for processor in processors:
        logits = processor(tokens, logits)
    return logits
