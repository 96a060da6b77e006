"""Statistics files of other programs: reading what they hold, refusing code, and every kind of damage."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import pickle
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytriattn import StatsError
from pytriattn.conversion.formats import ForeignStats, parse_foreign, read_foreign, write_fork, write_pt, write_tria
from support.foreign_files import fork_bytes, pt_bytes, random_heads, tria_bytes, zip_bytes

ALL = [(layer, head) for layer in range(3) for head in range(4)]
HEADS = random_heads(ALL, 16)
SAMPLES: dict[str, bytes] = {
    "fork version 1": fork_bytes(HEADS),
    "fork version 2": fork_bytes(HEADS, 2),
    "fork version 3": fork_bytes(HEADS, 3),
    "fork version 3, base alone": fork_bytes(HEADS, 3, explicit=False),
    "TRIA version 1": tria_bytes(HEADS),
    "TRIA version 2": tria_bytes(HEADS, 2),
    "pt, protocol 2": pt_bytes(HEADS, head_dim=32),
    "pt, protocol 4": pt_bytes(HEADS, protocol=4, head_dim=32, num_layers=3, num_kv_heads=2, rope_theta=10000.0),
}


def assert_same_heads(found: ForeignStats, expected: dict[tuple[int, int], np.ndarray]) -> None:
    assert sorted(found.heads) == sorted(expected)
    for key, bands in found.heads.items():
        np.testing.assert_array_equal(np.stack(bands), expected[key])


@pytest.mark.parametrize("name", SAMPLES)
def test_contents_tell_the_format(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(SAMPLES[name])
    stats = read_foreign(tmp_path / "file")
    assert name.partition(",")[0] in stats.format
    assert stats.head_dim == 32
    assert_same_heads(stats, HEADS)
    if not name.startswith("pt"):
        assert (stats.n_layer, stats.n_head, stats.n_head_kv, stats.rope_theta) == (3, 4, 2, 10000.0)
    if name.startswith("fork"):
        assert (stats.model_name, stats.interleaved) == ("a model", True)
    if "version 3" in name:
        assert [layer.rope_dim for layer in stats.layers] == [32] * 3
        assert (stats.layers[0].omega is None) == ("base alone" in name)


def test_sampled_heads() -> None:
    some = {key: HEADS[key] for key in [(0, 1), (2, 3)]}
    for data in (fork_bytes(some), fork_bytes(some, 3), tria_bytes(some), pt_bytes(some)):
        assert_same_heads(parse_foreign(data), some)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_forks_and_tria_are_told_apart_whatever_the_counts(version: int) -> None:
    """Both have the same first number, and small counts at the same places."""
    for n_layer, n_head, n_bands, name in [
        (1, 1, 1, ""),
        (64, 2, 4, "x" * 19),
        (2, 8, 64, "a" * 300),
        (16, 4, 8, "16"),
    ]:
        heads = random_heads([(i, j) for i in range(n_layer) for j in range(n_head)], n_bands)
        shape = {"head_dim": 2 * n_bands, "n_layer": n_layer, "n_head": n_head, "n_head_kv": 1}
        assert "fork" in parse_foreign(fork_bytes(heads, version, name=name, **shape)).format
        if version < 3:
            assert "TRIA" in parse_foreign(tria_bytes(heads, version, **shape)).format


def test_sizes_are_those_of_real_files() -> None:
    heads = random_heads([(layer, head) for layer in range(3, 64, 4) for head in range(24)], 128)
    data = fork_bytes(heads, head_dim=256, n_layer=64, n_head=24, n_head_kv=4, name="eighteen letters!!")
    assert len(data) == 789_571
    assert len(parse_foreign(data).heads) == 384


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_what_was_read(name: str) -> None:
    stats = parse_foreign(SAMPLES[name])
    if "fork" in name:
        assert write_fork(stats, int(stats.format[-1])) == SAMPLES[name]
    elif name == "TRIA version 1":
        assert write_tria(stats) == SAMPLES[name]
    elif name.startswith("pt"):
        assert_same_heads(parse_foreign(write_pt(stats)), HEADS)
        assert write_pt(stats) == write_pt(stats)


def test_torch_reads_what_is_written(tmp_path: pathlib.Path) -> None:
    """With ``PYTRIATTN_TORCH_PYTHON`` naming an interpreter that has torch."""
    python = os.environ.get("PYTRIATTN_TORCH_PYTHON")
    if not python:
        pytest.skip("PYTRIATTN_TORCH_PYTHON is not set")
    (tmp_path / "x.pt").write_bytes(write_pt(parse_foreign(SAMPLES["pt, protocol 4"])))
    program = (
        "import torch, sys; c = torch.load(sys.argv[1], weights_only=True, mmap=bool(int(sys.argv[2]))); "
        "print(len(c['stats']), float(c['stats']['layer01_head02']['q_mean_imag'][5]), c['metadata']['head_dim'])"
    )
    for mmap in "01":
        ran = subprocess.run(
            [python, "-c", program, tmp_path / "x.pt", mmap], capture_output=True, text=True, check=True
        )
        assert ran.stdout.split() == ["12", str(float(HEADS[1, 2][1, 5])), "32"]


# --- code in pickles ---


class _Runs:
    def __init__(self, *what: object) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        return self.what


def _make_file(path: str) -> None:
    pathlib.Path(path).write_text("executed")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("bare", [False, True])
def test_code_in_a_pickle_is_not_executed(tmp_path: pathlib.Path, protocol: int, bare: bool) -> None:
    target = tmp_path / "executed"
    attacks: list[object] = [
        _Runs(os.system, (f"touch {target}",)),
        _Runs(eval, (f"open({str(target)!r}, 'w')",)),
        _Runs(_make_file, (str(target),)),
        _Runs(pathlib.Path.touch, (target,)),
    ]
    for attack in attacks:
        pickled = pickle.dumps({"stats": attack, "metadata": {}}, protocol)
        with pytest.raises(StatsError):
            parse_foreign(pickled if bare else zip_bytes(pickled))
        assert not target.exists()
    pickle.loads(pickle.dumps(attacks[0], protocol))
    assert target.exists()  # the attack would have worked


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02cbuiltins\neval\nq\x00.", "names builtins.eval"),
        (b"\x80\x02ctorch\nload\n.", "names torch.load"),
        (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "calls something"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "operation NEWOBJ"),
        (b"\x80\x02}}b.", "operation BUILD"),
        (b"(S'x'\nios\nsystem\n.", "operation"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "notes what is not there"),
        (b"\x80\x02K\x01j\xff\xff\xff\x7f.", "has not noted"),
        (b"\x80\x02}K\x01K\x02s.", "keys that are not text"),
        (b"\x80\x02X\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.", "damaged"),
        (b"\x80\x02(tQ.", "not an array of numbers"),
        (b"\x80\x02).", "no dictionaries"),
        (b"\x80\x02", "no end"),
        (b".", "empty stack"),
        (b"\x80\x02s.", "empty stack"),
        (b"\x80\x02u.", "without a beginning"),
        (b"\x80\x02K\x01(e.", "no list"),
        (b"\x80\x02}(X\x01\x00\x00\x00au.", "without a value"),
    ],
)
def test_pickles_that_are_refused(pickled: bytes, message: str) -> None:
    with pytest.raises(StatsError, match=message):
        parse_foreign(zip_bytes(pickled))


def test_bombs_are_refused() -> None:
    with pytest.raises(StatsError, match="compressed"):
        parse_foreign(pt_bytes(HEADS, compress=True))
    # each level doubles the one before: to hash or to print it would take for ever
    nested = b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b"."
    with pytest.raises(StatsError, match="no dictionaries"):
        parse_foreign(zip_bytes(nested))
    one = pt_bytes({(0, 0): HEADS[0, 0]})
    with pytest.raises(StatsError, match="beyond its storage"):
        parse_foreign(_with_long_tensors(one))


def _with_long_tensors(data: bytes) -> bytes:
    # sizes in the pickle alone: the archive around it is sound
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickled = archive.read("name/data.pkl")
    old, new = b"K\x10\x85", b"K\xff\x85"
    assert old in pickled
    storages = [archive.read(f"name/data/{i}") for i in range(3)]
    return zip_bytes(pickled.replace(old, new), storages)


# --- damage ---


@pytest.mark.slow
@settings(max_examples=800, deadline=None)
@given(data=st.data())
def test_damage_never_raises_anything_else(data: st.DataObject) -> None:
    """Bits flipped, pieces cut out, doubled or overwritten: read as something else, or refused; never at the price of
    memory.
    """
    content = bytearray(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])
    for _ in range(data.draw(st.integers(1, 4))):
        region = data.draw(st.sampled_from([64, 400, len(content)]))
        place = data.draw(st.integers(0, max(0, min(region, len(content)) - 1)))
        match data.draw(st.sampled_from(["flip", "flip", "cut", "truncate", "number", "double"])):
            case "flip":
                content[place : place + 1] = bytes(
                    [(content[place] if content else 0) ^ 1 << data.draw(st.integers(0, 7))]
                )
            case "cut":
                del content[place : place + data.draw(st.integers(1, 64))]
            case "truncate":
                del content[place:]
            case "number":
                content[place : place + 4] = struct.pack(
                    "<I", data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 65536]))
                )
            case "double":
                content[place:place] = content[place : place + 128]
        if not content:
            break
    tracemalloc.start()
    try:
        stats = parse_foreign(bytes(content))
    except StatsError:
        pass
    else:
        assert all(np.isfinite(part).all() for bands in stats.heads.values() for part in bands)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 60 * len(content) + 1_000_000


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_pickles_in_a_sound_archive(data: st.DataObject) -> None:
    """Checksums of the archive hide most damage from the reader of the pickle; here it meets all of it."""
    archive = zipfile.ZipFile(io.BytesIO(SAMPLES[data.draw(st.sampled_from(["pt, protocol 2", "pt, protocol 4"]))]))
    pickled = bytearray(archive.read("name/data.pkl"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(pickled) - 1))
        pickled[place] = data.draw(st.integers(0, 255))
    del pickled[data.draw(st.one_of(st.just(len(pickled)), st.integers(0, len(pickled)))) :]
    with contextlib.suppress(StatsError):
        parse_foreign(zip_bytes(bytes(pickled), [archive.read(f"name/data/{i}") for i in range(36)]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(content: bytes) -> None:
    for start in (b"", struct.pack("<2I", 0x54524941, 1), struct.pack("<2I", 0x54524941, 3), b"PK\x03\x04"):
        with pytest.raises(StatsError):
            parse_foreign(start + content)
    with pytest.raises(StatsError):
        parse_foreign(zip_bytes(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda heads: {**heads, (0, 0): np.full((3, 16), np.nan, np.float32)}, "layer 0, head 0.*not finite"),
        (lambda heads: {**heads, (1, 2): -np.ones((3, 16), np.float32)}, "layer 1, head 2.*negative"),
        (lambda heads: {key: 0 * values for key, values in heads.items()}, "no statistics"),
    ],
)
def test_impossible_numbers(
    change: Callable[[dict[tuple[int, int], np.ndarray]], dict[tuple[int, int], np.ndarray]], message: str
) -> None:
    for make in (fork_bytes, tria_bytes, pt_bytes):
        with pytest.raises(StatsError, match=message):
            parse_foreign(make(change(HEADS)))


def test_other_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StatsError, match=r"nowhere\.pt' cannot be read"):
        read_foreign(tmp_path / "nowhere.pt")
    with pytest.raises(StatsError, match="cannot be read"):
        read_foreign(tmp_path)
    for content, message in [
        (b"", "none of the known"),
        (b"GGUF", "none of the known"),
        (b"PK\x03\x04", "zip"),
        (b"\x80\x02.", "1.6"),
    ]:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StatsError, match=f"x' cannot be used: .*{message}"):
            read_foreign(tmp_path / "x")
    for data in (fork_bytes(HEADS), tria_bytes(HEADS)):
        with pytest.raises(StatsError, match="version"):
            parse_foreign(data[:4] + struct.pack("<I", 9) + data[8:])
        with pytest.raises(StatsError):
            parse_foreign(data + b"\0")


# --- real files ---


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("published-ds-r1-qwen-7b.pt", ("published .pt", 128, 28 * 28, [64])),
        ("tria-v1-qwen3-1.7b.bin", ("TRIA version 1", 128, 28 * 16, [64])),
        ("tria-v2-qwen3.5-27b.bin", ("TRIA version 2", 64, 16 * 24, [32])),
    ],
)
def test_real_files(name: str, shape: tuple[object, ...]) -> None:
    folder = os.environ.get("PYTRIATTN_FORMATS_DIR")
    if not folder:
        pytest.skip("PYTRIATTN_FORMATS_DIR is not set")
    stats = read_foreign(pathlib.Path(folder) / name)
    assert (stats.format, stats.head_dim, len(stats.heads), stats.band_counts) == shape
    assert all((bands.concentration() <= 1.0001).all() for bands in stats.heads.values())
