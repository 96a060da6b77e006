#!/usr/bin/env python3
"""A tour in a minute: fetch a small real model, calibrate it, generate far past the budget, and say what that saved.

make demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fetch_models
import pytriattn
from pytriattn import Llama
from pytriattn.stats.bundled import bundled_text

PROMPT = (
    "<|im_start|>user\nTell me a long story about a lighthouse keeper and a storm.<|im_end|>\n<|im_start|>assistant\n"
)


def step(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def calibrate(model: Path, folder: Path) -> Path:
    """Run the command line program as a user would."""
    corpus, output = folder / "corpus.txt", folder / "smollm2.triattention"
    corpus.write_text(bundled_text(), encoding="utf-8")
    command = ["pytriattn-calibrate", str(corpus), "-m", str(model), "-o", str(output), "--tokens", "512"]
    print("$", " ".join(Path(word).name if Path(word).is_absolute() else word for word in command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)
    return output


def generate(model: Path, stats: Path, budget: int, n_tokens: int) -> None:
    """Generate past the budget and print the text's end and the books."""
    with Llama(model, triattn_stats=stats, budget=budget, seed=1) as llm:
        start = time.monotonic()
        result = llm(PROMPT, max_tokens=n_tokens, temperature=0.8, repeat_penalty=1.1, ignore_eos=True)
        seconds = time.monotonic() - start
        text, usage, kv = result["choices"][0]["text"], result["usage"], llm.kv_stats()  # type: ignore[index]
        kept = llm.kept_positions(15, 0), llm.kept_positions(15, 1)
    print(text[:200].strip(), "\n   [...]\n", text[-200:].strip(), sep="")

    step("What that took")
    seen, cells = kv["tokens_seen"], kv["cells_allocated"]
    per_cell = kv["kv_bytes"] / cells
    eviction = kv["scoring_seconds"] + kv["selection_seconds"] + kv["compaction_seconds"]
    print(
        f"{usage['completion_tokens']} tokens in {seconds:.1f} s ({usage['completion_tokens'] / seconds:.0f} tokens/s)"
    )
    print(
        f"KV cache: {kv['kv_bytes'] / 2**20:.1f} MiB for {cells} cells, however long the text; "
        f"the {seen} tokens read so far would fill {per_cell * seen / 2**20:.1f} MiB, the model's "
        f"{model_context(model)} tokens "
        f"{per_cell * model_context(model) / 2**20:.1f} MiB"
    )
    share = 100 * eviction / kv["decoding_seconds"]
    print(
        f"evictions: {kv['evictions']}, of {kv['tokens_evicted']} keys per head in all; {share:.1f} % of decoding time"
    )
    common = len(set(kept[0]) & set(kept[1]))
    print(f"layer 15: heads 0 and 1 keep {len(kept[0])} keys each, {common} of them the same")


def model_context(model: Path) -> int:
    """Return the number of positions that the model was trained for."""
    with Llama(model, n_ctx=64) as llm:
        return int(llm.metadata[f"{llm.metadata['general.architecture']}.context_length"])


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"pytriattn {pytriattn.__version__} with llama.cpp {pytriattn.llama_cpp_commit}")
    step("Fetching SmolLM2 135M (98 MB, Apache-2.0)")
    model = fetch_models.fetch("smollm2")
    print(model.name)
    with tempfile.TemporaryDirectory() as folder:
        step("Calibrating")
        stats = calibrate(model, Path(folder))
        step(f"Generating {arguments.tokens} tokens with room for {arguments.budget}")
        generate(model, stats, arguments.budget, arguments.tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
