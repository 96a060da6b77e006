#!/usr/bin/env python3
"""Write a copy of a GGUF model with its matrices in another type. On CPUs, F16 reads prompts twice as fast as Q4_1.

    python tools/copy_model.py SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct.F16.gguf [--type F16]

The weights are those of the model, rounded; what was lost when they were quantised does not come back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from tqdm import tqdm

_OWN = ("GGUF.", "general.architecture", "general.file_type")  # fields that the writer sets itself


def write_copy(source: Path, target: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16) -> None:
    """Write the copy. Vectors, such as norms, and matrices whose rows do not fit the type become F32.

    Raises:
        ValueError: the model consists of several files.
    """
    reader = gguf.GGUFReader(source)
    if "split.count" in reader.fields and reader.fields["split.count"].contents() > 1:
        raise ValueError(f"{source}: the model consists of several files; join them with llama-gguf-split --merge")
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    for name, field in reader.fields.items():
        if not name.startswith(_OWN):
            form = field.types[0]
            items = field.types[-1] if form == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), form, sub_type=items)
    for tensor in tqdm(reader.tensors, unit="tensor", disable=None):
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(n) for n in tensor.shape[::-1]])
        fits = values.ndim > 1 and values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        writer.add_tensor(
            tensor.name,
            gguf.quantize(values, kind) if fits else values,
            raw_dtype=kind if fits else gguf.GGMLQuantizationType.F32,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("target", type=Path, help="the file to write")
    kinds = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
    parser.add_argument("--type", choices=kinds, default="F16", help="of the matrices (default: F16)")
    arguments = parser.parse_args()
    write_copy(arguments.source, arguments.target, gguf.GGMLQuantizationType[arguments.type])


if __name__ == "__main__":
    main()
