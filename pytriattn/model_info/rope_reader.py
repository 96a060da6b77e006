"""RoPE of each layer, from a model's metadata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from pytriattn.errors import ModelLoadError
from pytriattn.model_info.architecture_rules import Rules
from pytriattn.model_info.keys import Keys
from pytriattn.model_info.layers import RopeInfo

__all__ = ["RopeReader"]

_TYPES = ("none", "linear", "yarn", "longrope")
_GUESS = Rules("", "neox")
Factors = npt.NDArray[np.float32]


class RopeReader:
    """Tells what RoPE does in each layer.

    Args:
        keys: the model's keys.
        rules: the rules of its architecture; None: it is unknown. Half-split pairs are then assumed, and the fact
            ``rope_mode`` says so.
        head_dim: the dimensions of keys in layers with full attention.
        n_ctx_train: positions that the model was trained for.
        slides: whether each layer slides, those for multi-token prediction included.
        n_layer: layers without these.

    Raises:
        ModelLoadError: a number makes no sense.
    """

    def __init__(
        self, keys: Keys, rules: Rules | None, head_dim: int, n_ctx_train: int, slides: Sequence[bool], n_layer: int
    ) -> None:
        """See the class."""
        self._keys = keys
        self._slides = slides
        self._n_layer = n_layer
        self._rules = rules or _GUESS
        self._n_ctx_train = n_ctx_train
        self.mode = self._read_mode(known=rules is not None)
        if self.mode == "none":
            return
        self._n_rot = keys.integer("rope.dimension_count", head_dim, fact="rope_n_rot")
        self._n_rot_sliding = keys.integer("rope.dimension_count_swa", self._n_rot)
        if self._rules.halves_n_rot:
            self._n_rot //= 2
            keys.note("rope_n_rot", self._n_rot)
        self._dense = keys.integer("leading_dense_block_count") if self._rules.nope == "full_after_dense" else 0
        self._pattern = keys.array("attention.rope_pattern") if self._rules.nope == "pattern" else []
        self._full = self._read_full(head_dim)
        self._sliding = self._read_sliding() if self._rules.sliding is not None else self._full
        self._factors, self._long_factors = self._read_factors()

    def layer(self, layer: int, head_dim: int) -> RopeInfo | None:
        """Return what RoPE does to a layer's queries and keys, heads of `head_dim`; None: nothing.

        Raises:
            ModelLoadError: it would rotate what is not there.
        """
        if self.mode == "none" or self._is_without(layer):
            return None
        slides = self._slides[layer]
        rope = self._sliding if slides else self._full
        # where the number is not the layer's own, llama.cpp takes that of the first layer, whatever that layer is
        by_layer = self._rules.n_rot_by_layer
        n_rot = self._n_rot_sliding if self._slides[layer if by_layer else 0] else self._n_rot
        if n_rot == 0:
            return None
        if n_rot > head_dim or n_rot % 2 != 0:
            self._refuse(f"RoPE would turn {n_rot} of {head_dim} dimensions")
        begin = head_dim - n_rot if self._rules.rotates == "last" else 0
        rope = replace(rope, head_dim=head_dim, rot_begin=begin, n_rot=n_rot)
        if self._factors is None or (slides and not self._rules.factors_slide):
            return rope
        if min(len(f) for f in (self._factors, self._long_factors) if f is not None) < n_rot // 2:
            self._refuse(f"there are fewer factors for RoPE than the {n_rot // 2} that are needed")
        long = None if self._long_factors is None else self._long_factors[: n_rot // 2]
        scaling = rope.scaling if long is None else "longrope"
        return replace(rope, scaling=scaling, factors=self._factors[: n_rot // 2], long_factors=long)

    # --- what holds for the whole model ---

    def _read_mode(self, *, known: bool) -> str:
        keys, mode = self._keys, str(self._rules.rope)
        self._sections: tuple[int, ...] = ()
        if mode in ("mrope", "imrope"):
            sections = keys.by_layer("rope.dimension_sections", 4, (0, 0, 0, 0))
            if self._rules.plain_rope and not (sections[0] > 0 and sections[1] > 0):
                mode = self._rules.plain_rope
            else:
                self._sections = tuple(sections)
                keys.note_key("rope_sections", self._sections, "rope.dimension_sections")
                if not any(sections):
                    self._refuse("the sections of M-RoPE are missing or empty")
        rule = f"rule of {keys.architecture} (src/llama-model.cpp)"
        keys.note("rope_mode", mode, rule if known else "guess: the architecture is unknown")
        return mode

    def _read_full(self, head_dim: int) -> RopeInfo:
        keys, rules = self._keys, self._rules
        base = keys.number("rope.freq_base", 10000.0, fact="rope_freq_base")
        alpha = keys.number("rope.scaling.alpha", 0.0)
        if rules.scales_base and alpha > 0 and head_dim > 2:
            base *= alpha ** (head_dim / (head_dim - 2))
            keys.note("rope_freq_base", base, f"key {keys.full('rope.scaling.alpha')}")
        scaling = keys.text("rope.scaling.type", "linear")
        if scaling not in _TYPES:
            keys.wrong("rope.scaling.type", f"one of {', '.join(_TYPES)}")
        stretched = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0))
        scale = 1 / stretched if stretched != 0 and scaling != "none" else 1.0
        if not (1 < base < math.inf and 1e-9 < scale < 1e9):
            self._refuse(f"RoPE has the base {base:g} and the scale {scale:g}")
        keys.note_key("rope_freq_scale", scale, "rope.scaling.factor")
        n_ctx_orig = keys.integer("rope.scaling.original_context_length", self._n_ctx_train, limit=1 << 32)
        keys.note_key("rope_n_ctx_orig", n_ctx_orig, "rope.scaling.original_context_length")
        ext = 1.0 if scaling == "yarn" else 0.0
        if rules.reads_factors:
            own = keys.number("rope.scaling.yarn_ext_factor", -1.0)
            ext = own if own >= 0 else ext
        fast, slow = 32.0, 1.0
        if rules.reads_betas:
            fast = keys.number("rope.scaling.yarn_beta_fast", fast)
            slow = keys.number("rope.scaling.yarn_beta_slow", slow)
            if ext != 0 and not (fast > 0 and slow > 0):
                self._refuse(f"YaRN has the bounds {fast:g} and {slow:g}")
        if scaling == "linear" and scale == 1:
            scaling = "none"
        keys.note_key("rope_scaling", scaling, "rope.scaling.type")
        return RopeInfo(
            mode=self.mode,
            head_dim=head_dim,
            rot_begin=0,
            n_rot=0,
            freq_base=base,
            freq_scale=scale,
            scaling=scaling,
            ext_factor=ext,
            attn_factor=self._attn_factor(1 / scale, ext),
            beta_fast=fast,
            beta_slow=slow,
            n_ctx_orig=n_ctx_orig or self._n_ctx_train,
            sections=self._sections,
        )

    def _attn_factor(self, factor: float, ext: float) -> float:
        """Return the operator's factor on rotated dimensions, for a context stretched by `factor`.

        The operator multiplies by YaRN's 1 + 0.1 ln(factor) of its own accord, which llama.cpp has to take back first.
        """
        keys, rules = self._keys, self._rules
        attn = keys.number("rope.scaling.yarn_attn_factor", 1.0) if rules.reads_factors else 1.0
        if ext != 0:
            multiplier = 0.0
            if rules.log_multiplier:
                multiplier = rules.log_multiplier * keys.number("rope.scaling.yarn_log_multiplier", 0.0)
            above = multiplier if multiplier and rules.mscale_cancels else 1.0
            own = 1 + 0.1 * math.log(factor)
            below = _magnitude(factor, multiplier)
            if own <= 0 or below <= 0:
                self._refuse(f"YaRN stretches the context by {factor:g}")
            attn = _magnitude(factor, above) / below / own
        attn *= keys.number("rope.scaling.attn_factor", 1.0)
        keys.note_key("rope_attn_factor", attn, "rope.scaling.attn_factor")
        return attn

    def _read_sliding(self) -> RopeInfo:
        keys, full, sliding = self._keys, self._full, self._rules.sliding
        assert sliding is not None
        if sliding.rope == "full":
            return full
        own = keys.number("rope.freq_base_swa", full.freq_base if sliding.inherits_base else 10000.0)
        if not 1 < own < math.inf:
            self._refuse(f"RoPE of sliding layers has the base {own:g}")
        base = full.freq_base if sliding.rope == "plain" else own
        keys.note_key("rope_freq_base_sliding", base, "rope.freq_base_swa", is_rule=True)
        if sliding.rope in ("plain", "own_plain"):
            return replace(full, freq_base=base, freq_scale=1.0, scaling="none", ext_factor=0.0, attn_factor=1.0)
        if sliding.rope == "own_base" or sliding.inherits_scale:
            return replace(full, freq_base=base)
        scaling = "none" if full.scaling == "linear" else full.scaling
        return replace(full, freq_base=base, freq_scale=1.0, scaling=scaling)

    def _read_factors(self) -> tuple[Factors | None, Factors | None]:
        metadata, rules = self._keys.metadata, self._rules
        kind = rules.factors
        if kind == "either":
            kind = "long" if self._full.scaling == "longrope" else "freqs"
        names = {"freqs": ["rope_freqs.weight"], "long": ["rope_factors_short.weight", "rope_factors_long.weight"]}
        found = [name for name in names.get(kind, []) if name in metadata.tensors]
        if not found:
            return None, None
        self._keys.note("rope_factors", tuple(found), f"tensor {found[0]}")
        values = [metadata.tensor_values(name) for name in found]
        if not all(np.isfinite(v).all() and (v > 0).all() for v in values):
            self._refuse("factors of RoPE are not positive numbers")
        if kind == "freqs":
            return values[0], None
        if len(values) == 1:  # the other set is as if it were of ones
            ones = np.ones_like(values[0])
            return (values[0], ones) if "short" in found[0] else (ones, values[0])
        return values[0], values[1]

    # --- layers without ---

    def _is_without(self, i: int) -> bool:
        slides, any_slides = self._slides[i], any(self._slides)
        match self._rules.nope:
            case "every_4th":
                return (i + 1) % 4 == 0
            case "every_4th_or_last":
                return (i + 1) % (4 if any_slides else self._n_layer) == 0
            case "full":
                return any_slides and not slides
            case "full_always":
                return not slides
            case "full_after_dense":
                return not slides and i >= self._dense
            case "first_of_4":
                return any_slides and i % 4 == 0
            case "finetuned":
                return not self._keys.flag("rope.scaling.finetuned", True)
            case "pattern":
                return i < len(self._pattern) and self._pattern[i] == 0
            case "n_layer_not_32":
                return self._n_layer != 32
            case _:
                return False

    def _refuse(self, what: str) -> NoReturn:
        raise ModelLoadError(f"'{self._keys.metadata.path}': {what}; the file is damaged: download it again")


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1
