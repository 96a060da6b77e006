"""What the metadata of a model cannot tell: rules that llama.cpp has built in for each architecture.

They are those of the pinned llama.cpp. `Rules.source` names the file of its ``src/models`` that a rule was read from;
which pairs RoPE turns is decided in ``src/llama-model.cpp`` (``llama_model_rope_type``), and which cache a model gets
in the same file (``create_memory``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Rules", "Sliding", "rules_of"]


@dataclass(frozen=True)
class Sliding:
    """Which layers attend to a window only, and how RoPE differs there.

    Attributes:
        period: every so many layers one has full attention, if the file does not say otherwise; 0: the file lists the
            layers; -1: none has.
        dense_first: the first layer of each period has full attention, not the last.
        window: the window if the file has no ``attention.sliding_window``; 0: then no layer slides.
        fixed_window: a window in place of the file's.
        only_n_layer: models of another number of layers have full attention everywhere; 0: all models slide.
        rope: ``own`` (another base and scale), ``full`` (as in the other layers), ``plain`` (their base, but no
            stretching), ``own_plain`` (another base, and no stretching) or ``own_base`` (another base alone).
        inherits_base: without ``rope.freq_base_swa`` the base is that of the other layers; else 10,000.
        inherits_scale: the scale is that of the other layers; else 1.
    """

    period: int = 0
    dense_first: bool = False
    window: int = 0
    fixed_window: int = 0
    only_n_layer: int = 0
    rope: Literal["own", "full", "plain", "own_plain", "own_base"] = "own"
    inherits_base: bool = True
    inherits_scale: bool = True


@dataclass(frozen=True)
class Rules:
    """The rules of one architecture.

    Attributes:
        source: the file that they are from.
        rope: the dimensions that form a pair; ``none``: no RoPE. ``mrope`` and ``imrope`` are kept only with
            ``rope.dimension_sections`` where `plain_rope` names what they are without.
        plain_rope: see `rope`.
        cache: ``attention`` (K and V), ``hybrid`` (and recurrent states), ``recurrent`` (states alone), ``none``, or
            ``other``: more than that, whose bytes are not predicted.
        sliding: None: every layer has full attention.
        nope: the layers without RoPE: ``every_4th``, ``every_4th_or_last`` (the last one, if none slides), ``full``
            (those that do not slide, if others do), ``full_always``, ``full_after_dense`` (but for the leading dense
            ones), ``first_of_4`` (if others slide), ``finetuned`` (all, by a key), ``pattern`` (by a key),
            ``n_layer_not_32`` (all, but in models of 32 layers).
        factors: tensors that divide frequencies: ``freqs`` (``rope_freqs``), ``long`` (LongRoPE's two), ``either``
            (these if ``rope.scaling.type`` is ``longrope``, else that).
        factors_slide: sliding layers have the factors as well.
        rotates: the ``first`` dimensions of a head, or its ``last`` ones.
        n_rot_by_layer: ``rope.dimension_count_swa`` counts in sliding layers; elsewhere the first layer's number does
            for all.
        halves_n_rot: layers with full attention rotate half of what the key says.
        log_multiplier: the factor on ``rope.scaling.yarn_log_multiplier``; 0: that key is not read.
        mscale_cancels: DeepSeek 2's factor of YaRN is the same above and below the line.
        reads_betas: YaRN's bounds have keys.
        reads_factors: YaRN's factors have keys.
        scales_base: ``rope.scaling.alpha`` raises the base.
        recurrent: layers that keep a state: those ``without_kv`` heads, without heads and feed-forward (``bare``), all
            but each ``full_attention_interval``-th (``interval``), or ``all``.
        state: whose formula: ``mamba`` (the first, which has no groups), ``mamba2`` (and delta networks), ``conv``,
            ``delta`` (Kimi), ``linear`` (MiniMax), ``rwkv``.
        shares_from: layers from here on read an earlier layer's cache; -1: ``attention.shared_kv_layers`` tells; 0:
            none do.
        alibi: ``always``, by a ``key``, or in models of 40 layers (``n_layer_40``).
        learned_positions: ``always``, or where the ``tensor`` is there.
        loops: ``num_loops`` repeats the layers.
        indexer: sparse attention keeps one more key for each token, ``with_v`` (though nothing uses it) in layers after
            the leading dense ones, or ``without_v`` in those that decoding uses.
        flash_attention: llama.cpp runs it with flash attention.
    """

    source: str
    rope: Literal["none", "norm", "neox", "mrope", "imrope"] = "none"
    plain_rope: Literal["", "norm", "neox"] = ""
    cache: Literal["attention", "hybrid", "recurrent", "none", "other"] = "attention"
    sliding: Sliding | None = None
    nope: str = ""
    factors: Literal["", "freqs", "long", "either"] = ""
    factors_slide: bool = True
    rotates: Literal["first", "last"] = "first"
    n_rot_by_layer: bool = False
    halves_n_rot: bool = False
    log_multiplier: float = 0.0
    mscale_cancels: bool = False
    reads_betas: bool = False
    reads_factors: bool = False
    scales_base: bool = False
    recurrent: Literal["", "without_kv", "bare", "interval", "all"] = ""
    state: Literal["mamba", "mamba2", "conv", "delta", "linear", "rwkv"] = "mamba2"
    shares_from: int = 0
    alibi: Literal["", "always", "key", "n_layer_40"] = ""
    learned_positions: Literal["", "always", "tensor"] = ""
    loops: bool = False
    indexer: Literal["", "with_v", "without_v"] = ""
    flash_attention: bool = True


def rules_of(architecture: str) -> Rules | None:
    """Return the rules of an architecture, as ``general.architecture`` names it; None: it is not known here."""
    return _RULES.get(architecture)


def _rope_alone_rules(**kinds: str) -> dict[str, Rules]:
    """Return rules that consist of a kind of RoPE alone, for architectures whose file has their name."""
    return {name: Rules(f"{name}.cpp", rope) for rope in ("norm", "neox") for name in kinds[rope].split()}


_WITHOUT_CACHE = """\
bert neo-bert eurobert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 modern-bert gemma-embedding
wavtokenizer-dec dream llada llada-moe rnd1 clip t5encoder
"""
_RULES: dict[str, Rules] = {
    # --- RoPE and nothing else, in files of their own name ---
    **_rope_alone_rules(
        norm="internlm2 xverse command-r olmo arctic deepseek chatglm chameleon bailingmoe maincoder ernie4-5-moe",
        neox="falcon dbrx stablelm bitnet qwen qwen2 qwen2moe qwen3 qwen3moe olmoe phi2 gemma starcoder2 openelm "
        "gptneox codeshell orion nemotron bailingmoe2 dots1 jais2 grovemoe minimax-m2 cogvlm talkie hunyuan-moe plamo",
    ),
    # --- and of another name ---
    "ernie4_5": Rules("ernie4-5.cpp", "norm"),
    "ernie4_5-moe": Rules("ernie4-5-moe.cpp", "norm"),
    "deepseek2-ocr": Rules("deepseek2ocr.cpp", "norm"),
    "seed_oss": Rules("seed-oss.cpp", "neox"),
    "hy_v3": Rules("hy-v3.cpp", "neox"),
    "hrm_text": Rules("hrm-text.cpp", "neox"),
    # --- factors that divide frequencies ---
    "llama": Rules("llama.cpp", "norm", factors="either"),
    "llama-embed": Rules("llama-embed.cpp", "norm", factors="either"),
    "deci": Rules("deci.cpp", "norm", factors="either"),
    "mistral3": Rules("mistral3.cpp", "norm", factors="either", log_multiplier=1.0, reads_betas=True),
    "minicpm": Rules("minicpm.cpp", "norm", factors="either"),
    "arcee": Rules("arcee.cpp", "norm", factors="freqs"),
    "nanbeige": Rules("nanbeige.cpp", "norm", factors="freqs", loops=True),
    "apertus": Rules("apertus.cpp", "neox", factors="either"),
    "pangu-embedded": Rules("pangu-embed.cpp", "neox", factors=""),
    "exaone": Rules("exaone.cpp", "neox", factors="freqs"),
    "phi3": Rules("phi3.cpp", "neox", factors="long"),
    "phimoe": Rules("phimoe.cpp", "neox", factors="long"),
    # --- RoPE by a key, or in some layers only ---
    "granite": Rules("granite.cpp", "norm", factors="either", nope="finetuned"),
    "granitemoe": Rules("granite-moe.cpp", "norm", factors="either"),
    "granite_swa": Rules("granite-swa.cpp", "norm", factors="either", nope="pattern", sliding=Sliding(rope="full")),
    "smollm3": Rules("smollm3.cpp", "norm", nope="every_4th"),
    "baichuan": Rules("baichuan.cpp", "norm", nope="n_layer_not_32", alibi="n_layer_40"),
    # --- several positions ---
    "qwen2vl": Rules("qwen2vl.cpp", "mrope"),
    "paddleocr": Rules("paddleocr.cpp", "mrope"),
    "glm4": Rules("glm4.cpp", "mrope", plain_rope="norm"),
    "glm4moe": Rules("glm4-moe.cpp", "mrope", plain_rope="neox"),
    "hunyuan_vl": Rules("hunyuan-vl.cpp", "mrope", plain_rope="neox", scales_base=True),
    "hunyuan-dense": Rules("hunyuan-dense.cpp", "neox", scales_base=True),
    "qwen3vl": Rules("qwen3vl.cpp", "imrope"),
    "qwen3vlmoe": Rules("qwen3vlmoe.cpp", "imrope"),
    "qwen3tts": Rules("qwen3tts.cpp", "imrope"),
    # --- sliding windows ---
    "afmoe": Rules("afmoe.cpp", "neox", nope="every_4th", sliding=Sliding(4)),
    "cohere2": Rules("cohere2.cpp", "norm", nope="full_always", sliding=Sliding(4, rope="full")),
    "cohere2moe": Rules(
        "cohere2moe.cpp", "norm", nope="full_after_dense", sliding=Sliding(4, dense_first=True, rope="full")
    ),
    "exaone4": Rules(
        "exaone4.cpp",
        "neox",
        factors="freqs",
        nope="full",
        sliding=Sliding(4, window=4096, only_n_layer=64, rope="full"),
    ),
    "exaone-moe": Rules(
        "exaone-moe.cpp", "neox", factors="freqs", nope="full_always", sliding=Sliding(4, window=128, rope="full")
    ),
    "gemma2": Rules("gemma2.cpp", "neox", sliding=Sliding(2, window=4096)),
    "gemma3": Rules("gemma3.cpp", "neox", sliding=Sliding(6, inherits_base=False, inherits_scale=False)),
    "gemma3n": Rules(
        "gemma3n.cpp", "neox", shares_from=20, sliding=Sliding(5, inherits_base=False, inherits_scale=False)
    ),
    "gemma4": Rules(
        "gemma4.cpp",
        "neox",
        factors="freqs",
        factors_slide=False,
        n_rot_by_layer=True,
        shares_from=-1,
        sliding=Sliding(inherits_base=False, inherits_scale=False),
    ),
    "gpt-oss": Rules("openai-moe.cpp", "neox", sliding=Sliding(2)),
    "laguna": Rules("laguna.cpp", "neox", n_rot_by_layer=True, sliding=Sliding(4, dense_first=True, rope="own_plain")),
    "llama4": Rules(
        "llama4.cpp",
        "norm",
        factors="freqs",
        nope="every_4th_or_last",
        sliding=Sliding(4, window=8192, fixed_window=8192),
    ),
    "maple": Rules("maple.cpp", "neox", nope="full_always", n_rot_by_layer=True, sliding=Sliding()),
    "mellum": Rules("mellum.cpp", "neox", sliding=Sliding(4, rope="plain")),
    "mimo2": Rules("mimo2.cpp", "neox", sliding=Sliding(inherits_base=False, inherits_scale=False)),
    "muse-glimmer": Rules("muse-glimmer.cpp", "norm", nope="full_always", sliding=Sliding(4, inherits_scale=False)),
    "olmo2": Rules("olmo2.cpp", "neox", sliding=Sliding(4, rope="plain")),
    "plamo3": Rules("plamo3.cpp", "neox", sliding=Sliding(8, inherits_base=False, inherits_scale=False)),
    "smallthinker": Rules(
        "smallthinker.cpp", "neox", nope="first_of_4", sliding=Sliding(4, dense_first=True, fixed_window=4096)
    ),
    "spark2_5": Rules("spark2-5.cpp", "neox", n_rot_by_layer=True, sliding=Sliding()),
    "step35": Rules(
        "step35.cpp",
        "neox",
        factors="either",
        factors_slide=False,
        n_rot_by_layer=True,
        halves_n_rot=True,
        sliding=Sliding(inherits_base=False, inherits_scale=False),
    ),
    # --- latent attention ---
    "deepseek2": Rules("deepseek2.cpp", "norm", rotates="last", log_multiplier=10.0, mscale_cancels=True),
    "mistral4": Rules("deepseek2.cpp", "norm", rotates="last", log_multiplier=10.0),
    "minicpm3": Rules("minicpm3.cpp", "neox", rotates="last", factors="long"),
    "plm": Rules("plm.cpp", "norm", rotates="last", flash_attention=False),
    # --- sparse attention ---
    "minimax-m3": Rules("minimax-m3.cpp", "neox", indexer="with_v"),
    "deepseek32": Rules("deepseek32.cpp", "norm", rotates="last", log_multiplier=10.0, indexer="without_v"),
    # --- recurrent states as well ---
    "lfm2": Rules(
        "lfm2.cpp", "neox", cache="hybrid", recurrent="without_kv", state="conv", sliding=Sliding(-1, rope="full")
    ),
    "lfm2moe": Rules("lfm2moe.cpp", "neox", cache="hybrid", recurrent="without_kv", state="conv"),
    "jamba": Rules("jamba.cpp", cache="hybrid", recurrent="without_kv", state="mamba"),
    "falcon-h1": Rules("falcon-h1.cpp", "neox", cache="hybrid", recurrent="all"),
    "plamo2": Rules("plamo2.cpp", "neox", cache="hybrid", recurrent="without_kv"),
    "granitehybrid": Rules(
        "granite-hybrid.cpp", "norm", cache="hybrid", recurrent="without_kv", factors="freqs", nope="finetuned"
    ),
    "nemotron_h": Rules("nemotron-h.cpp", cache="hybrid", recurrent="bare"),
    "nemotron_h_moe": Rules("nemotron-h.cpp", cache="hybrid", recurrent="bare"),
    "kimi-linear": Rules("kimi-linear.cpp", cache="hybrid", recurrent="without_kv", state="delta", rotates="last"),
    "bailingmoe3": Rules(
        "bailingmoe3.cpp",
        "mrope",
        plain_rope="norm",
        cache="hybrid",
        recurrent="without_kv",
        state="delta",
        rotates="last",
    ),
    "qwen3next": Rules("qwen3next.cpp", "neox", cache="hybrid", recurrent="interval"),
    "qwen35": Rules("qwen35.cpp", "imrope", cache="hybrid", recurrent="interval"),
    "qwen35moe": Rules("qwen35moe.cpp", "imrope", cache="hybrid", recurrent="interval"),
    "minimax-01": Rules("minimax-01.cpp", "neox", cache="hybrid", recurrent="interval", state="linear"),
    # --- states alone ---
    "mamba": Rules("mamba.cpp", cache="recurrent", recurrent="all", state="mamba"),
    "mamba2": Rules("mamba2.cpp", cache="recurrent", recurrent="all"),
    "rwkv6": Rules("rwkv6.cpp", cache="recurrent", recurrent="all", state="rwkv"),
    "rwkv6qwen2": Rules("rwkv6qwen2.cpp", cache="recurrent", recurrent="all", state="rwkv"),
    "rwkv7": Rules("rwkv7.cpp", cache="recurrent", recurrent="all", state="rwkv"),
    "arwkv7": Rules("arwkv7.cpp", cache="recurrent", recurrent="all", state="rwkv"),
    # --- positions otherwise than by RoPE ---
    "gpt2": Rules("gpt2.cpp", learned_positions="always"),
    "starcoder": Rules("starcoder.cpp", learned_positions="always"),
    "bloom": Rules("bloom.cpp", alibi="always"),
    "refact": Rules("refact.cpp", alibi="always"),
    "mpt": Rules("mpt.cpp", alibi="key", learned_positions="tensor"),
    "jais": Rules("jais.cpp", alibi="key"),
    "grok": Rules("grok.cpp", "neox", reads_betas=True, reads_factors=True, flash_attention=False),
    # --- caches of another kind: layers are told, bytes are not ---
    "glm-dsa": Rules("glm-dsa.cpp", "norm", cache="other", rotates="last"),
    "hy_v4": Rules("hy-v4.cpp", "norm", cache="other", rotates="last"),
    "dots3note": Rules("dots3note.cpp", "norm", cache="other", rotates="last", sliding=Sliding(rope="own_base")),
    "kimi-k3": Rules("kimi-k3.cpp", cache="hybrid", recurrent="without_kv", state="delta", rotates="last"),
    "glm5-next": Rules("glm5-next.cpp", cache="other", recurrent="without_kv", state="delta", rotates="last"),
    "qwen4exp": Rules("qwen4exp.cpp", "imrope", cache="other", recurrent="interval"),
    "t5": Rules("t5.cpp", cache="other"),
    "deepseek4": Rules("deepseek4.cpp", "norm", cache="other", rotates="last", sliding=Sliding(-1)),
    "graniteswitch": Rules("granite-switch.cpp", "norm", cache="other", nope="finetuned"),
    # --- a whole text at once, or the gaps of one: no cache ---
    **{name: Rules(f"{name}.cpp", cache="none") for name in _WITHOUT_CACHE.split()},
}
