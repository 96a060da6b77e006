"""Tiny GGUF models with random weights that llama.cpp loads and decodes, one per architecture.

They have no tokeniser: feed them token ids below 256. Run this file to write them all into a folder.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import tiny_after_rope
import tiny_archs
import tiny_hybrids
import tiny_hybrids_more
import tiny_latent
import tiny_moes
import tiny_mtp
import tiny_shared
from tiny_builder import TinyModel

ARCHITECTURES: dict[str, Callable[[], TinyModel]] = {
    "llama": tiny_archs.llama,
    "llama-ropefreqs": tiny_archs.llama_ropefreqs,
    "llama-linear": tiny_archs.llama_linear,
    "qwen2": tiny_archs.qwen2,
    "qwen3": tiny_archs.qwen3,
    "smollm3": tiny_archs.smollm3,
    "phi3": tiny_archs.phi3,
    "glm4": tiny_archs.glm4,
    "stablelm": tiny_archs.stablelm,
    "gemma2": tiny_archs.gemma2,
    "gemma3": tiny_archs.gemma3,
    "gemma4": tiny_archs.gemma4,
    "qwen3moe": tiny_moes.qwen3moe,
    "gpt-oss": tiny_moes.gpt_oss,
    "llama4": tiny_moes.llama4,
    "deepseek2": tiny_moes.deepseek2,
    "lfm2": tiny_hybrids.lfm2,
    "granitehybrid": tiny_hybrids.granitehybrid,
    "falcon-h1": tiny_hybrids.falcon_h1,
    "jamba": tiny_hybrids.jamba,
    "qwen35": tiny_hybrids.qwen35,
    "qwen3next": tiny_hybrids.qwen3next,
    "gemma3n": tiny_shared.gemma3n,
    "deepseek2-full": tiny_latent.deepseek2_full,
    "deepseek2-mtp": tiny_latent.deepseek2_mtp,
    "minicpm3": tiny_latent.minicpm3,
    "mistral4": tiny_latent.mistral4,
    "kimi-linear": tiny_latent.kimi_linear,
    "bailingmoe3": tiny_latent.bailingmoe3,
    "plm": tiny_latent.plm,
    "glm4moe": tiny_mtp.glm4moe,
    "qwen35-mtp": tiny_mtp.qwen35_mtp,
    "bailingmoe2": tiny_mtp.bailingmoe2,
    "exaone-moe": tiny_mtp.exaone_moe,
    "step35": tiny_mtp.step35,
    "mimo2": tiny_mtp.mimo2,
    "lfm2moe": tiny_hybrids_more.lfm2moe,
    "granitehybrid-moe": tiny_hybrids_more.granitehybrid_moe,
    "nemotron_h": tiny_hybrids_more.nemotron_h,
    "nemotron_h_moe": tiny_hybrids_more.nemotron_h_moe,
    "plamo2": tiny_hybrids_more.plamo2,
    "qwen35moe": tiny_hybrids_more.qwen35moe,
    "lfm2-sliding": tiny_hybrids_more.lfm2_sliding,
    "mistral3": tiny_after_rope.mistral3,
    "talkie": tiny_after_rope.talkie,
    "maincoder": tiny_after_rope.maincoder,
    "hunyuan-dense": tiny_after_rope.hunyuan_dense,
}


def make_tiny_model(arch: str, folder: pathlib.Path) -> pathlib.Path:
    """Return the path of the tiny model, which is written if it is missing; the same bytes every time."""
    path = folder / f"{arch}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        ARCHITECTURES[arch]().save(path)
    return path


if __name__ == "__main__":
    for name in ARCHITECTURES:
        print(make_tiny_model(name, pathlib.Path(sys.argv[1])))
