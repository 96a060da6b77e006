"""What is known of the tiny models from how they were made and from the definitions of their architectures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Facts:
    """What is known of a tiny model from how it was made and from the definition of its architecture."""

    full: tuple[int, ...]
    sliding: tuple[int, ...] = ()
    shared: dict[int, int] = field(default_factory=dict)
    """Layers without a cache of their own, and whose they read."""
    interleaved: bool = False
    n_rot: int = 32
    head_dim: int = 32
    rot_begin: int = 0
    nope: tuple[int, ...] = ()
    scale: float = 1.0
    sliding_scale: float | None = None
    """Of sliding layers, if they have another."""


FACTS = {
    "llama": Facts((0, 1, 2), interleaved=True),
    "llama-ropefreqs": Facts((0, 1), interleaved=True, n_rot=64, head_dim=64),
    "llama-linear": Facts((0, 1), interleaved=True),
    "qwen2": Facts((0, 1, 2)),
    "qwen3": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "smollm3": Facts((0, 1, 2, 3), interleaved=True, n_rot=64, head_dim=64, nope=(3,)),
    "phi3": Facts((0, 1, 2), n_rot=24, scale=1.19),
    "glm4": Facts((0, 1, 2), interleaved=True, n_rot=16),
    "stablelm": Facts((0, 1, 2), n_rot=8),
    "gemma2": Facts((1, 3), (0, 2), n_rot=64, head_dim=64),
    "gemma3": Facts((2, 5), (0, 1, 3, 4), n_rot=96, head_dim=96),
    "gemma4": Facts((1, 3), (0, 2), {4: 2, 5: 3}, n_rot=64, head_dim=64),
    "qwen3moe": Facts((0, 1)),
    "gpt-oss": Facts((1, 3), (0, 2), n_rot=64, head_dim=64, scale=1 + 0.1 * np.log(4)),
    "llama4": Facts((3,), (0, 1, 2), interleaved=True, nope=(3,)),
    "deepseek2": Facts((0, 1, 2), interleaved=True, head_dim=128, rot_begin=96),
    "lfm2": Facts((1, 3)),
    "granitehybrid": Facts((1, 3), nope=(1, 3)),
    "falcon-h1": Facts((0, 1), n_rot=64, head_dim=64),
    "jamba": Facts((1, 3), nope=(1, 3)),
    "qwen35": Facts((1, 3), n_rot=16, head_dim=64),
    "qwen3next": Facts((1, 3), n_rot=8),
    "gemma3n": Facts(tuple(range(1, 20, 2)), tuple(range(0, 20, 2)), {20: 18, 21: 19}),
    "deepseek2-full": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "deepseek2-mtp": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "minicpm3": Facts((0, 1, 2), head_dim=96, rot_begin=64),
    "mistral4": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "kimi-linear": Facts((1, 3), head_dim=96, nope=(1, 3)),
    "bailingmoe3": Facts((1, 3), interleaved=True, head_dim=96, rot_begin=64),
    "plm": Facts((0, 1, 2), interleaved=True, head_dim=96, rot_begin=64),
    "glm4moe": Facts((0, 1, 2), head_dim=64),
    "qwen35-mtp": Facts((1, 3), n_rot=16, head_dim=64),
    "bailingmoe2": Facts((0, 1, 2), n_rot=16),
    "exaone-moe": Facts((1, 3), (0, 2), nope=(1, 3)),
    "step35": Facts((1, 3), (0, 2), head_dim=64),
    "mimo2": Facts((1, 3), (0, 2), head_dim=96),
    "lfm2moe": Facts((1, 3)),
    "granitehybrid-moe": Facts((1, 3), interleaved=True),
    "nemotron_h": Facts((1, 4), head_dim=64, nope=(1, 4)),
    "nemotron_h_moe": Facts((1, 4), nope=(1, 4)),
    "plamo2": Facts((1, 3)),
    "qwen35moe": Facts((1, 3), n_rot=16, head_dim=64),
    "mistral3": Facts((0, 1, 2), interleaved=True, n_rot=64, head_dim=64),
    "talkie": Facts((0, 1, 2)),
    "maincoder": Facts((0, 1, 2), interleaved=True),
    "hunyuan-dense": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "spark2_5": Facts((1, 3), (0, 2)),
    "muse-glimmer": Facts((1, 3), (0, 2), interleaved=True, nope=(1, 3)),
    "maple": Facts((1, 3), (0, 2), nope=(1, 3)),
    "xverse": Facts((0, 1, 2), interleaved=True),
    "baichuan": Facts(tuple(range(32)), interleaved=True),
    "plamo": Facts((0, 1, 2)),
    "qwen": Facts((0, 1, 2)),
    "orion": Facts((0, 1, 2)),
    "codeshell": Facts((0, 1, 2)),
    "jais2": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "bitnet": Facts((0, 1, 2)),
    "pangu-embed": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "paddleocr": Facts((0, 1, 2)),
    "gpt2": Facts((0, 1), nope=(0, 1)),
    "starcoder": Facts((0, 1), nope=(0, 1)),
    "bloom": Facts((0, 1), nope=(0, 1)),
    "mpt": Facts((0, 1), nope=(0, 1)),
    "refact": Facts((0, 1), nope=(0, 1)),
    "baichuan-alibi": Facts(tuple(range(40)), nope=tuple(range(40))),
    "granite": Facts((0, 1, 2), interleaved=True),
    "minicpm": Facts((0, 1, 2), interleaved=True, n_rot=64, head_dim=64),
    "ernie4_5": Facts((0, 1, 2), interleaved=True, n_rot=64, head_dim=64),
    "internlm2": Facts((0, 1, 2), interleaved=True),
    "arcee": Facts((0, 1, 2), interleaved=True, scale=1 + 0.1 * np.log(20)),
    "chatglm": Facts((0, 1, 2), interleaved=True, n_rot=16),
    "gemma": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "seed_oss": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "exaone": Facts((0, 1, 2)),
    "apertus": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "qwen2vl": Facts((0, 1, 2)),
    "qwen3vl": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "phi2": Facts((0, 1, 2), n_rot=12),
    "starcoder2": Facts((0, 1, 2)),
    "falcon": Facts((0, 1, 2), n_rot=64, head_dim=64),
    "gptneox": Facts((0, 1, 2), n_rot=8),
    "nemotron": Facts((0, 1, 2), n_rot=16),
    "command-r": Facts((0, 1, 2), interleaved=True),
    "cohere2": Facts((1, 3), (0, 2), interleaved=True, nope=(1, 3)),
    "olmo2": Facts((0, 1, 2)),
    "exaone4": Facts((0, 1, 2)),
    "plamo3": Facts((1, 3), (0, 2), n_rot=32, head_dim=64),
    "granitemoe": Facts((0, 1), interleaved=True),
    "ernie4_5-moe": Facts((0, 1, 2), interleaved=True),
    "deepseek": Facts((0, 1, 2), interleaved=True),
    "qwen2moe": Facts((0, 1)),
    "dots1": Facts((0, 1, 2)),
    "minimax-m2": Facts((0, 1), head_dim=64),
    "olmoe": Facts((0, 1)),
    "smallthinker": Facts((0, 4), (1, 2, 3), nope=(0, 4)),
    "qwen3vlmoe": Facts((0, 1), n_rot=64, head_dim=64),
    "phimoe": Facts((0, 1), scale=1.19),
    "grok": Facts((0, 1)),
    "dbrx": Facts((0, 1)),
    "afmoe": Facts((1, 3), (0, 2), nope=(3,)),
    "nanbeige": Facts((0, 1, 2, 3), interleaved=True),
    "hrm_text": Facts((0, 1, 2, 3)),
    "deci": Facts((0, 2, 4), interleaved=True),
    "openelm": Facts((0, 1, 2)),
    "granite_swa": Facts((1, 3), (0, 2), interleaved=True, nope=(3,)),
    "cohere2moe": Facts((0, 2), (1, 3), interleaved=True, nope=(2,)),
    "mellum": Facts((1, 3), (0, 2), scale=1 + 0.1 * np.log(8), sliding_scale=1.0),
    "laguna": Facts((0, 2), (1, 3), head_dim=64, scale=1 + 0.1 * np.log(8), sliding_scale=1.0),
    "olmo2-sliding": Facts((1, 3), (0, 2), scale=1 + 0.1 * np.log(8), sliding_scale=1.0),
    "exaone4-sliding": Facts(
        tuple(range(3, 64, 4)), tuple(i for i in range(64) if i % 4 != 3), nope=tuple(range(3, 64, 4))
    ),
    "olmo": Facts((0, 1, 2), interleaved=True),
    "bailingmoe": Facts((0, 1), interleaved=True),
    "grovemoe": Facts((0, 1)),
    "hy_v3": Facts((0, 1, 2)),
    "hunyuan-moe": Facts((0, 1), n_rot=64, head_dim=64),
    "hunyuan_vl": Facts((0, 1, 2)),
}


def plain(base: float, n_rot: int) -> npt.NDArray[np.float64]:
    return base ** (-2.0 * np.arange(n_rot // 2) / n_rot)


def yarn(base: float, n_rot: int, factor: float, original: int) -> npt.NDArray[np.float64]:
    """YaRN (arXiv 2309.00071): fast bands keep their frequency, slow ones are slowed down by the factor, a ramp
    between.
    """

    def band(turns: float) -> float:
        return n_rot * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))

    low, high = max(0, np.floor(band(32))), min(n_rot - 1, np.ceil(band(1)))
    ramp = 1 - np.clip((np.arange(n_rot // 2) - low) / max(0.001, high - low), 0, 1)
    omega = plain(base, n_rot)
    return omega / factor * (1 - ramp) + omega * ramp


GEMMA4_FREE = np.where(np.arange(32) < 8, 1.0, 0.0)
OMEGA: dict[str, dict[int, npt.NDArray[np.float64]]] = {
    "llama": {0: plain(1e4, 32)},
    "llama-ropefreqs": {0: plain(5e5, 64) / np.interp(np.arange(32), [8, 20], [1.0, 8.0])},
    "llama-linear": {0: plain(1e4, 32) / 4},
    "smollm3": {0: plain(2e6, 64), 2: plain(2e6, 64)},
    "phi3": {0: plain(1e4, 24) / np.geomspace(1.0, 16.0, 12)},
    "phi3-512": {0: plain(1e4, 24) / np.linspace(1.0, 1.5, 12)},
    "glm4": {0: plain(1e4, 16)},
    "gemma3": {0: plain(1e4, 96), 2: plain(1e6, 96)},
    "gemma4": {0: plain(1e4, 32), 3: plain(1e6, 64) * GEMMA4_FREE, 5: plain(1e6, 64) * GEMMA4_FREE},
    "gpt-oss": {0: yarn(150000.0, 64, 4, 512), 1: yarn(150000.0, 64, 4, 512)},
    "deepseek2": {0: plain(1e4, 32)},
    "deepseek2-full": {0: yarn(1e4, 32, 4, 512)},
    "qwen35": {1: plain(1e7, 16)},
    "arcee": {0: yarn(1e4, 32, 20, 128)},
    "chatglm": {0: plain(1e4, 16)},
    "phi2": {0: plain(1e4, 12)},
    "exaone": {0: plain(1e6, 32) / np.interp(np.arange(16), [4, 10], [1.0, 8.0])},
    "apertus": {0: plain(5e5, 64) / np.interp(np.arange(32), [8, 20], [1.0, 8.0])},
    "qwen2vl": {0: plain(1e6, 32)},
    "qwen3vl": {0: np.append(plain(5e6, 64)[:-1], 0.0)},
    "cohere2": {0: plain(5e4, 32)},
    "plamo3": {0: plain(1e4, 32), 1: plain(1e6, 32)},
    "olmo2-sliding": {0: plain(5e5, 32), 1: yarn(5e5, 32, 8, 256)},
    "mellum": {0: plain(5e5, 32), 1: yarn(5e5, 32, 8, 256)},
    "laguna": {0: yarn(5e5, 32, 8, 256), 1: plain(1e4, 64)},
    "minimax-m2": {0: plain(5e6, 32)},
    "afmoe": {0: plain(1e4, 32), 1: plain(1e4, 32)},
    "smallthinker": {1: plain(1.5e6, 32)},
    "phimoe": {0: plain(1e4, 32) / np.geomspace(1.0, 16.0, 16)},
    "phimoe-512": {0: plain(1e4, 32) / np.linspace(1.0, 1.5, 16)},
}
