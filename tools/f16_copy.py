#!/usr/bin/env python3
"""Write a copy of a GGUF model with all weights in F16, which CPUs without instructions for its type read faster.

    python tools/f16_copy.py SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct.F16.gguf

The weights are those of the model, rounded to F16; what was lost when they were quantised does not come back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from tqdm import tqdm

_OWN = ("GGUF.", "general.architecture", "general.file_type")  # fields that the writer sets itself


def write_f16_copy(source: Path, target: Path) -> None:
    """Write the copy. Matrices become F16; vectors, such as norms, stay what they are.

    Raises:
        ValueError: the model consists of several files.
    """
    reader = gguf.GGUFReader(source)
    if "split.count" in reader.fields and reader.fields["split.count"].contents() > 1:
        raise ValueError(f"{source}: the model consists of several files; join them with llama-gguf-split --merge")
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, field in reader.fields.items():
        if not name.startswith(_OWN):
            kind = field.types[0]
            items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=items)
    for tensor in tqdm(reader.tensors, unit="tensor", disable=None):
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in tensor.shape[::-1]])
        writer.add_tensor(tensor.name, values.astype(np.float32 if values.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("target", type=Path, help="the file to write")
    arguments = parser.parse_args()
    write_f16_copy(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
