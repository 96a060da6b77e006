"""Metadata are read from files of every make, quickly; a damaged file is refused, by name and with a remedy."""

from __future__ import annotations

import pathlib
import re
import struct

import gguf
import numpy as np
import pytest

from pytriattn import ModelLoadError
from pytriattn.gguf.metadata import SkippedArray, read_metadata
from pytriattn.gguf.types import TENSOR_TYPES, row_bytes
from pytriattn.model_info.reader import gguf_info
from support.gguf_bytes import gguf_bytes, model_keys, text, typed, write_split


@pytest.fixture
def write(tmp_path: pathlib.Path):
    def write_bytes(data: bytes, name: str = "model.gguf") -> pathlib.Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write_bytes


# --- what is read ---


@pytest.mark.slow
def test_real_models_are_read_like_the_gguf_package_does(smollm2: pathlib.Path) -> None:
    ours, theirs = read_metadata(smollm2), gguf.GGUFReader(smollm2)
    assert ours.file_bytes == smollm2.stat().st_size
    assert sorted(ours.tensors) == sorted(tensor.name for tensor in theirs.tensors)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert list(mine.shape) == tensor.shape.tolist()
        assert (mine.n_bytes, mine.offset) == (tensor.n_bytes, tensor.data_offset)
        assert mine.type_name == tensor.tensor_type.name.lower()
    for name, their_field in theirs.fields.items():
        if name.startswith("GGUF."):
            continue
        value = ours.values[name]
        if isinstance(value, SkippedArray):
            assert value.length == len(their_field.data)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, their_field.contents())
        else:
            assert value == their_field.contents()


def test_a_large_vocabulary_is_counted(gemma3: pathlib.Path) -> None:
    values = read_metadata(gemma3).values
    assert values["tokenizer.ggml.tokens"] == SkippedArray(262144, of_strings=True)
    assert values["tokenizer.ggml.scores"] == SkippedArray(262144, of_strings=False)


def test_values_of_every_type(write) -> None:
    numbers = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
    pairs = [(f"n{kind}", struct.pack(f"<I{code}", kind, 3)) for kind, code in numbers.items()]
    pairs += [(f"a{kind}", struct.pack(f"<IIQ2{code}", 9, kind, 2, 3, 4)) for kind, code in numbers.items()]
    pairs += [
        ("yes", typed(True)),
        ("flags", typed([True, False])),
        ("text", typed("größer")),
        ("names", typed(["a", "bc", ""])),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 2, 0, len(pairs)) + b"".join(text(key) + value for key, value in pairs)
    values = read_metadata(write(head)).values
    for kind in numbers:
        assert values[f"n{kind}"] == 3
        assert values[f"a{kind}"].tolist() == [3, 4]
    assert values["yes"] is True
    assert values["flags"].tolist() == [True, False]
    assert values["text"] == "größer"
    assert values["names"] == SkippedArray(3, of_strings=True)


@pytest.mark.parametrize(
    ("kind", "values"), [(0, b"\0\0\x80?"), (1, b"\0<"), (30, b"\x80?")], ids=["f32", "f16", "bf16"]
)
def test_small_tensors_are_read(write, kind: int, values: bytes) -> None:
    data = gguf_bytes("llama", model_keys(), {"t": np.zeros(1)})
    place = data.index(text("t") + struct.pack("<IQI", 1, 1, 0)) + len(text("t")) + 12
    data = data[:place] + struct.pack("<I", kind) + data[place + 4 :]
    metadata = read_metadata(write(data[: read_metadata(write(data)).tensors["t"].offset] + values.ljust(32, b"\0")))
    assert metadata.tensor_values("t").tolist() == [1.0]
    with pytest.raises(KeyError):
        metadata.tensor_values("u")


def test_quantised_tensors_are_not_read(smollm2: pathlib.Path) -> None:
    with pytest.raises(
        ModelLoadError, match="token_embd.weight is q8_0|token_embd.weight is q4_1|token_embd.weight is q6_K"
    ):
        read_metadata(smollm2).tensor_values("token_embd.weight")


def test_types_of_tensors_are_those_of_the_gguf_package() -> None:
    for kind, (name, block, n_bytes) in TENSOR_TYPES.items():
        if kind in gguf.GGMLQuantizationType._value2member_map_:
            theirs = gguf.GGMLQuantizationType(kind)
            assert theirs.name.lower() == name.lower()
            assert gguf.GGML_QUANT_SIZES[theirs] == (block, n_bytes)
    assert row_bytes("q8_0", 64) == 68
    with pytest.raises(ValueError, match="blocks of 32 values, which 48"):
        row_bytes("q8_0", 48)


# --- split models ---


def test_any_part_of_a_split_model_gives_all(tmp_path: pathlib.Path) -> None:
    paths = write_split(tmp_path, "model", 3, model_keys())
    for path in paths:
        metadata = read_metadata(path)
        assert metadata.path == str(paths[0])
        assert metadata.parts == tuple(map(str, paths))
        assert metadata.file_bytes == sum(p.stat().st_size for p in paths)
        assert metadata.values["general.architecture"] == "llama"
        for number in range(3):
            tensor = metadata.tensors[f"blk.{number}.weight"]
            assert (tensor.part, tensor.shape) == (number, (4, 2))
            assert set(metadata.tensor_values(tensor.name)) == {float(number)}
    assert gguf_info(paths[1]).n_layer == 4


def test_parts_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    paths = write_split(tmp_path, "model", 3, model_keys())
    other = write_split(tmp_path, "other", 2, model_keys())
    paths[1].write_bytes(other[1].read_bytes())
    with pytest.raises(ModelLoadError, match=r"model-00002-of-00003.gguf' is not part 2 of 3"):
        read_metadata(paths[0])
    paths[1].unlink()
    with pytest.raises(ModelLoadError, match=r"part 2 of 3 .*model-00002-of-00003.gguf' does not exist"):
        read_metadata(paths[2])
    renamed = paths[0].rename(tmp_path / "model.gguf")
    with pytest.raises(ModelLoadError, match="NAME-00001-of-00003.gguf"):
        read_metadata(renamed)


def test_parts_with_the_same_tensor_or_too_few_are_refused(tmp_path: pathlib.Path) -> None:
    for names, message in ((["a", "a"], "both hold the tensor a"), (["a", "b"], "say.* 3 tensors, and they hold 2")):
        for number, name in enumerate(names):
            keys = {"split.no": number, "split.count": 2, "split.tensors.count": 3}
            data = gguf_bytes("llama", model_keys(), {name: np.zeros(4)}, bare_keys=keys)
            (tmp_path / f"m-0000{number + 1}-of-00002.gguf").write_bytes(data)
        with pytest.raises(ModelLoadError, match=message):
            read_metadata(tmp_path / "m-00001-of-00002.gguf")


# --- damaged files ---


def head(n_tensors: int = 0, n_keys: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def tensor_of(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


HUGE = 1 << 62
DAMAGED = {
    "empty": (b"", "is empty; download it again"),
    "short": (b"GG", r"is not a GGUF file \(it starts with b'GG'\); convert"),
    "other": (b"PK\3\4" + bytes(99), "is not a GGUF file"),
    "big-endian": (b"GGUF\0\0\0\3" + bytes(99), "big-endian file; convert"),
    "version 1": (head(version=1), "version 1 of the GGUF format"),
    "version 4": (head(version=4), "version 4 of the GGUF format.*update pytriattn"),
    "no counts": (b"GGUF\3\0\0\0", "ends after 8 bytes"),
    "keys": (head(n_keys=HUGE), "4611686018427387904 keys, more than any model"),
    "keys of no room": (head(n_keys=9) + bytes(99), "9 keys, more than fit into it"),
    "tensors": (head(n_tensors=HUGE), "tensors, more than any model"),
    "name": (head() + struct.pack("<Q", HUGE) + bytes(9), "a key whose name takes 4611686018427387904 bytes"),
    "name beyond the end": (head() + struct.pack("<Q", 99) + bytes(9), "within its metadata: it is incomplete"),
    "name of no text": (head() + text(b"\xff\xfe") + typed(1), "bytes that are no text in the name of a key"),
    "string": (head() + text("a") + struct.pack("<IQ", 8, HUGE) + bytes(9), "within its metadata"),
    "unknown type": (head() + text("a") + struct.pack("<IQ", 77, 1) + bytes(9), "value of unknown type 77 for a"),
    "nested array": (head() + text("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(99), "nested arrays for a"),
    "array of unknown": (head() + text("a") + struct.pack("<IIQ", 9, 55, 1) + bytes(99), "unknown type 55 for a"),
    "array": (head() + text("a") + struct.pack("<IIQ", 9, 4, HUGE) + bytes(99), "numbers in a, more than any model"),
    "array beyond the end": (
        head() + text("a") + struct.pack("<IIQ", 9, 4, 99) + bytes(99),
        "99 numbers in a, more than fit",
    ),
    "strings": (head() + text("a") + struct.pack("<IIQ", 9, 8, HUGE) + bytes(99), "strings in a, more than any model"),
    "one of the strings": (
        head() + text("a") + struct.pack("<IIQQ", 9, 8, 3, HUGE) + bytes(99),
        "within its metadata: it is incomplete",
    ),
    "twice": (head(n_keys=2) + 2 * (text("a") + typed(1)), "has the key a twice"),
    "alignment": (head() + text("general.alignment") + typed(3), "alignment that is no power of two"),
    "dimensions": (head(1, 0) + text("t") + struct.pack("<I", 1 << 30) + bytes(99), "1073741824 dimensions, t"),
    "shape": (head(1, 0) + tensor_of("t", (HUGE, HUGE)) + bytes(99), "values, t"),
    "rows": (head(1, 0) + tensor_of("t", (33,), 8) + bytes(99), "rows of 33 values in the q8_0 tensor t"),
    "place": (head(1, 0) + tensor_of("t", (1,), offset=3) + bytes(99), "a place that its alignment forbids, t"),
    "no room": (head(1, 0) + tensor_of("t", (1000,)) + bytes(99), "before the end of the tensor t: it is incomplete"),
    "far away": (head(1, 0) + tensor_of("t", (1,), offset=HUGE) + bytes(99), "before the end of the tensor t"),
    "two": (head(2, 0) + 2 * tensor_of("t", (1,)) + bytes(99), "two tensors of the same name"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_by_name(write, name: str) -> None:
    data, message = DAMAGED[name]
    path = write(data)
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_metadata(path)
    assert str(path) in str(caught.value)
    assert re.search("download|convert|update", str(caught.value))  # there is a remedy


def test_metadata_without_end_are_refused(write, tmp_path: pathlib.Path) -> None:
    path = write(head(n_keys=2) + text("a") + struct.pack("<IIQ", 9, 0, 200 << 20))
    with path.open("r+b") as stream:
        stream.truncate(1 << 33)  # a hole: it takes no room
    with pytest.raises(ModelLoadError, match="numbers in a, more than any model"):
        read_metadata(path)
    path.write_bytes(head(n_keys=9) + (text("a") + struct.pack("<IIQQ", 9, 8, 2, 120 << 20)))
    with path.open("r+b") as stream:
        stream.truncate(1 << 33)
    with pytest.raises(ModelLoadError):
        read_metadata(path)


def test_many_strings_take_no_time(write) -> None:
    n = 1 << 21  # as many as are allowed, all of them empty
    path = write(head() + text("a") + struct.pack("<IIQ", 9, 8, n) + bytes(8 * n))
    assert read_metadata(path).values["a"] == SkippedArray(n, of_strings=True)


def test_names_that_are_no_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelLoadError, match="is a folder; give the path"):
        read_metadata(tmp_path)
    with pytest.raises(ModelLoadError, match="does not exist; check the path"):
        read_metadata(tmp_path / "missing.gguf")
    with pytest.raises(ModelLoadError, match="is no ordinary file"):
        read_metadata("/dev/zero")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_metadata("a\0b")
