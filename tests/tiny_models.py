"""Tiny GGUF models with random weights that llama.cpp loads and decodes, one per architecture.

They have no tokeniser: feed them token ids below 256. Run this file to write them all into a folder.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import tiny_after_rope
import tiny_archs
import tiny_dense
import tiny_dense_norms
import tiny_hybrids
import tiny_hybrids_more
import tiny_latent
import tiny_moes
import tiny_more_moes
import tiny_mtp
import tiny_older
import tiny_rarer
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
    "spark2_5": tiny_rarer.spark2_5,
    "muse-glimmer": tiny_rarer.muse_glimmer,
    "maple": tiny_rarer.maple,
    "minimax-m3": tiny_rarer.minimax_m3,
    "xverse": tiny_older.xverse,
    "baichuan": tiny_older.baichuan,
    "plamo": tiny_older.plamo,
    "qwen": tiny_older.qwen,
    "orion": tiny_older.orion,
    "codeshell": tiny_older.codeshell,
    "jais2": tiny_older.jais2,
    "bitnet": tiny_older.bitnet,
    "pangu-embed": tiny_older.pangu_embed,
    "paddleocr": tiny_older.paddleocr,
    "gpt2": tiny_older.gpt2,
    "starcoder": tiny_older.starcoder,
    "bloom": tiny_older.bloom,
    "mpt": tiny_older.mpt,
    "refact": tiny_older.refact,
    "baichuan-alibi": tiny_older.baichuan_alibi,
    "granite": tiny_dense.granite,
    "minicpm": tiny_dense.minicpm,
    "ernie4_5": tiny_dense.ernie4_5,
    "internlm2": tiny_dense.internlm2,
    "arcee": tiny_dense.arcee,
    "chatglm": tiny_dense.chatglm,
    "gemma": tiny_dense.gemma,
    "seed_oss": tiny_dense.seed_oss,
    "exaone": tiny_dense.exaone,
    "apertus": tiny_dense.apertus,
    "qwen2vl": tiny_dense.qwen2vl,
    "qwen3vl": tiny_dense.qwen3vl,
    "phi2": tiny_dense_norms.phi2,
    "starcoder2": tiny_dense_norms.starcoder2,
    "falcon": tiny_dense_norms.falcon,
    "gptneox": tiny_dense_norms.gptneox,
    "nemotron": tiny_dense_norms.nemotron,
    "command-r": tiny_dense_norms.command_r,
    "cohere2": tiny_dense_norms.cohere2,
    "olmo2": tiny_dense_norms.olmo2,
    "olmo2-sliding": tiny_dense_norms.olmo2_sliding,
    "exaone4": tiny_dense_norms.exaone4,
    "exaone4-sliding": tiny_dense_norms.exaone4_sliding,
    "plamo3": tiny_dense_norms.plamo3,
    "granitemoe": tiny_more_moes.granitemoe,
    "ernie4_5-moe": tiny_more_moes.ernie4_5_moe,
    "deepseek": tiny_more_moes.deepseek,
    "qwen2moe": tiny_more_moes.qwen2moe,
    "hunyuan-moe": tiny_more_moes.hunyuan_moe,
    "dots1": tiny_more_moes.dots1,
    "minimax-m2": tiny_more_moes.minimax_m2,
    "olmoe": tiny_more_moes.olmoe,
    "smallthinker": tiny_more_moes.smallthinker,
    "qwen3vlmoe": tiny_more_moes.qwen3vlmoe,
    "phimoe": tiny_more_moes.phimoe,
    "grok": tiny_more_moes.grok,
    "dbrx": tiny_more_moes.dbrx,
    "afmoe": tiny_more_moes.afmoe,
    "hunyuan_vl": tiny_rarer.hunyuan_vl,
    "nanbeige": tiny_rarer.nanbeige,
    "hrm_text": tiny_rarer.hrm_text,
    "deci": tiny_rarer.deci,
    "openelm": tiny_rarer.openelm,
    "granite_swa": tiny_rarer.granite_swa,
    "cohere2moe": tiny_rarer.cohere2moe,
    "laguna": tiny_rarer.laguna,
    "mellum": tiny_rarer.mellum,
    "olmo": tiny_rarer.olmo,
    "bailingmoe": tiny_rarer.bailingmoe,
    "grovemoe": tiny_rarer.grovemoe,
    "hy_v3": tiny_rarer.hy_v3,
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
