"""LoRA adapters as GGUF files."""

from __future__ import annotations

import pathlib

import gguf
import numpy as np

ALPHA = 8.0


def write_lora(
    path: pathlib.Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], arch: str = "llama"
) -> pathlib.Path:
    """Write the factors (a, b) of matrices by their names, with the scale `ALPHA`; return the path."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name, (a, b) in factors.items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
