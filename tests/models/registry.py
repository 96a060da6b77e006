"""Tiny GGUF models with random weights that llama.cpp loads and decodes, one per architecture.

They have no tokeniser: feed them token ids below 256. In `tests`, ``python -m models.registry FOLDER`` writes them all.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

from models import dense, dense_norms, hybrid, latent, moe, mtp, positions, shared, sliding
from models.builder import TinyModel

ARCHITECTURES: dict[str, Callable[[], TinyModel]] = {
    "llama": dense.llama,
    "llama-ropefreqs": positions.llama_ropefreqs,
    "llama-linear": positions.llama_linear,
    "qwen2": dense.qwen2,
    "qwen3": dense.qwen3,
    "smollm3": positions.smollm3,
    "phi3": positions.phi3,
    "glm4": dense_norms.glm4,
    "stablelm": dense_norms.stablelm,
    "gemma2": sliding.gemma2,
    "gemma3": sliding.gemma3,
    "gemma4": shared.gemma4,
    "qwen3moe": moe.qwen3moe,
    "gpt-oss": sliding.gpt_oss,
    "llama4": sliding.llama4,
    "deepseek2": latent.deepseek2,
    "lfm2": hybrid.lfm2,
    "granitehybrid": hybrid.granitehybrid,
    "falcon-h1": hybrid.falcon_h1,
    "jamba": hybrid.jamba,
    "qwen35": hybrid.qwen35,
    "qwen3next": hybrid.qwen3next,
    "gemma3n": shared.gemma3n,
    "deepseek2-full": latent.deepseek2_full,
    "deepseek2-mtp": latent.deepseek2_mtp,
    "minicpm3": latent.minicpm3,
    "mistral4": latent.mistral4,
    "kimi-linear": latent.kimi_linear,
    "bailingmoe3": latent.bailingmoe3,
    "plm": latent.plm,
    "glm4moe": mtp.glm4moe,
    "qwen35-mtp": mtp.qwen35_mtp,
    "bailingmoe2": mtp.bailingmoe2,
    "exaone-moe": mtp.exaone_moe,
    "step35": mtp.step35,
    "mimo2": mtp.mimo2,
    "lfm2moe": hybrid.lfm2moe,
    "granitehybrid-moe": hybrid.granitehybrid_moe,
    "nemotron_h": hybrid.nemotron_h,
    "nemotron_h_moe": mtp.nemotron_h_moe,
    "plamo2": hybrid.plamo2,
    "qwen35moe": hybrid.qwen35moe,
    "lfm2-sliding": hybrid.lfm2_sliding,
    "mistral3": positions.mistral3,
    "talkie": positions.talkie,
    "maincoder": positions.maincoder,
    "hunyuan-dense": positions.hunyuan_dense,
    "spark2_5": sliding.spark2_5,
    "muse-glimmer": sliding.muse_glimmer,
    "maple": sliding.maple,
    "minimax-m3": shared.minimax_m3,
    "xverse": dense.xverse,
    "baichuan": dense.baichuan,
    "plamo": dense.plamo,
    "qwen": dense.qwen,
    "orion": dense_norms.orion,
    "codeshell": dense_norms.codeshell,
    "jais2": dense_norms.jais2,
    "bitnet": dense_norms.bitnet,
    "pangu-embed": dense.pangu_embed,
    "paddleocr": positions.paddleocr,
    "gpt2": positions.gpt2,
    "starcoder": positions.starcoder,
    "bloom": positions.bloom,
    "mpt": positions.mpt,
    "refact": positions.refact,
    "baichuan-alibi": positions.baichuan_alibi,
    "granite": dense.granite,
    "minicpm": dense.minicpm,
    "ernie4_5": dense.ernie4_5,
    "internlm2": dense.internlm2,
    "arcee": positions.arcee,
    "chatglm": dense.chatglm,
    "gemma": dense.gemma,
    "seed_oss": dense.seed_oss,
    "exaone": positions.exaone,
    "apertus": positions.apertus,
    "qwen2vl": positions.qwen2vl,
    "qwen3vl": positions.qwen3vl,
    "phi2": dense_norms.phi2,
    "starcoder2": dense_norms.starcoder2,
    "falcon": dense_norms.falcon,
    "gptneox": dense_norms.gptneox,
    "nemotron": dense_norms.nemotron,
    "command-r": dense_norms.command_r,
    "cohere2": sliding.cohere2,
    "olmo2": dense_norms.olmo2,
    "olmo2-sliding": sliding.olmo2_sliding,
    "exaone4": dense_norms.exaone4,
    "exaone4-sliding": sliding.exaone4_sliding,
    "plamo3": sliding.plamo3,
    "granitemoe": moe.granitemoe,
    "ernie4_5-moe": moe.ernie4_5_moe,
    "deepseek": moe.deepseek,
    "qwen2moe": moe.qwen2moe,
    "hunyuan-moe": moe.hunyuan_moe,
    "dots1": moe.dots1,
    "minimax-m2": moe.minimax_m2,
    "olmoe": moe.olmoe,
    "smallthinker": sliding.smallthinker,
    "qwen3vlmoe": moe.qwen3vlmoe,
    "phimoe": moe.phimoe,
    "grok": moe.grok,
    "dbrx": moe.dbrx,
    "afmoe": sliding.afmoe,
    "hunyuan_vl": positions.hunyuan_vl,
    "nanbeige": shared.nanbeige,
    "hrm_text": shared.hrm_text,
    "deci": shared.deci,
    "openelm": dense.openelm,
    "granite_swa": sliding.granite_swa,
    "cohere2moe": sliding.cohere2moe,
    "laguna": sliding.laguna,
    "mellum": sliding.mellum,
    "olmo": dense_norms.olmo,
    "bailingmoe": moe.bailingmoe,
    "grovemoe": moe.grovemoe,
    "hy_v3": moe.hy_v3,
}


def make_tiny_model(arch: str, folder: pathlib.Path, *, of_bytes: bool = False) -> pathlib.Path:
    """Return the path of the tiny model, which is written if it is missing; the same bytes every time.

    It has no vocabulary, or one in which each byte is a token.
    """
    path = folder / f"{arch}{'-bytes' if of_bytes else ''}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        ARCHITECTURES[arch]().save(path, of_bytes=of_bytes)
    return path


if __name__ == "__main__":
    for name in ARCHITECTURES:
        print(make_tiny_model(name, pathlib.Path(sys.argv[1])))
