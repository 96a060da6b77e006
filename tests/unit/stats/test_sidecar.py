"""``.triattention`` files: round trip, determinism, and every kind of damage."""

from __future__ import annotations

import os
import pathlib
import re
from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytriattn import Llama, StatsError, TriAttentionStats, calibrate
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.stats.bundled import bundled_text
from pytriattn.stats.sidecar import FORMAT_VERSION


def test_round_trip(sidecar: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    loaded = TriAttentionStats.load(sidecar)
    assert (loaded.model, loaded.n_tokens, loaded.corpus_sha256) == (
        smollm2_stats.model,
        smollm2_stats.n_tokens,
        smollm2_stats.corpus_sha256,
    )
    for a, b in zip(loaded.layers, smollm2_stats.layers, strict=True):
        for name in ("layer", "n_head", "n_head_kv", "n_rot", "interleaved", "scale"):
            assert getattr(a, name) == getattr(b, name)
        for name in ("omega", "centre", "magnitude"):
            found, expected = getattr(a, name), getattr(b, name)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_a_model_without_a_name(smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path) -> None:
    """Nor need the text be known, in statistics that others have measured."""
    nameless = replace(smollm2_stats, model=replace(smollm2_stats.model, name=""), corpus_sha256="", n_tokens=0)
    nameless.save(tmp_path / "nameless.triattention")
    loaded = TriAttentionStats.load(tmp_path / "nameless.triattention")
    assert (loaded.model, loaded.corpus_sha256, loaded.n_tokens) == (nameless.model, "", 0)


def test_it_is_plain_gguf(sidecar: pathlib.Path) -> None:
    reader = gguf.GGUFReader(sidecar)
    assert reader.get_field("general.architecture").contents() == "triattention"
    assert reader.get_field("triattention.model.name").contents()
    assert {tensor.name for tensor in reader.tensors} >= {"layer.0.centre", "layer.29.magnitude"}


@pytest.mark.slow
def test_the_same_model_and_text_give_the_same_bytes(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in "ab":
        calibrate(smollm2, bundled_text(), n_tokens=96).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]  # no temporary file stays


def test_a_failed_write_leaves_the_old_file(
    sidecar: pathlib.Path, smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.triattention"
    target.write_bytes(sidecar.read_bytes())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="No space"):
        smollm2_stats.save(target)
    assert target.read_bytes() == sidecar.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["model.triattention"]


@pytest.mark.slow
def test_missing_empty_and_foreign_files(tmp_path: pathlib.Path, smollm2: pathlib.Path) -> None:
    with pytest.raises(StatsError, match="nowhere.triattention.*cannot be read"):
        TriAttentionStats.load(tmp_path / "nowhere.triattention")
    with pytest.raises(StatsError, match="cannot be read"):
        TriAttentionStats.load(tmp_path)
    for content in (b"", b"hello, world", b"\x80\x02}q\x00"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StatsError, match="no GGUF container"):
            TriAttentionStats.load(tmp_path / "x")
    with pytest.raises(StatsError, match="not one of TriAttention statistics"):
        TriAttentionStats.load(smollm2)


def test_another_version(
    sidecar: pathlib.Path, tmp_path: pathlib.Path, smollm2_stats: TriAttentionStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytriattn.stats.sidecar.FORMAT_VERSION", FORMAT_VERSION + 1)
    smollm2_stats.save(tmp_path / "new")
    monkeypatch.undo()
    with pytest.raises(
        StatsError, match=f"format version {FORMAT_VERSION + 1}.*reads {FORMAT_VERSION - 1} and {FORMAT_VERSION}"
    ):
        TriAttentionStats.load(tmp_path / "new")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_always_noticed(
    sidecar: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(sidecar.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        header = data.draw(st.booleans())
        place = data.draw(st.integers(0, 4000 if header else len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "damaged.triattention"
    path.write_bytes(content)
    try:
        loaded = TriAttentionStats.load(path)
    except StatsError as error:
        assert "damaged.triattention" in str(error)
    else:
        # a flipped bit in padding, or in a key that nothing reads, is no damage
        original = TriAttentionStats.load(sidecar)
        assert loaded.model == original.model
        assert all((a.centre == b.centre).all() for a, b in zip(loaded.layers, original.layers, strict=True))


def test_absurd_lengths_are_refused_at_once(sidecar: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A reader that follows a damaged array length of 2**40 is busy for hours."""
    content = sidecar.read_bytes()
    key = b"triattention.layer.scale"
    place = content.index(key) + len(key) + 8  # behind the types of the value and of its elements
    (tmp_path / "x").write_bytes(content[:place] + (2**40).to_bytes(8, "little") + content[place + 8 :])
    with pytest.raises(StatsError, match="damaged"):
        TriAttentionStats.load(tmp_path / "x")


def test_statistics_of_another_model(
    gemma3: pathlib.Path, sidecar: pathlib.Path, smollm2_stats: TriAttentionStats
) -> None:
    for stats in (sidecar, str(sidecar), smollm2_stats):
        with pytest.raises(StatsError, match=r"(?i)smollm2.*gemma"):
            Llama(gemma3, triattn_stats=stats, budget=256)


@pytest.mark.parametrize("wanted", [{}, {"budget": 256, "mode": "recent"}, {"budget": 256}])
def test_statistics_of_another_model_are_named(
    gemma3: pathlib.Path, sidecar: pathlib.Path, wanted: dict[str, Any]
) -> None:
    """Also where they would not be used: they are a mistake there too."""
    with pytest.raises(StatsError, match=rf"'{re.escape(str(sidecar))}' were calibrated on (?i:smollm2)"):
        Llama(gemma3, triattn_stats=str(sidecar), **wanted)


def test_statistics_of_another_shape(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> None:
    fewer = replace(smollm2_stats, layers=smollm2_stats.layers[:-1])
    with pytest.raises(StatsError, match="statistics 29 .0-28., model 30 .0-29."):
        Llama(smollm2, triattn_stats=fewer, budget=256)


def test_identity_names_both_sides() -> None:
    identity = ModelIdentity("Model", "llama", "ab" * 32)
    assert str(identity) == "Model (llama, abababababab)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        smollm2_stats.save(tmp_path / "x")
