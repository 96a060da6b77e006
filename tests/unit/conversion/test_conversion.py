"""Statistics of other programs converted to ours and back, on tiny models whose own statistics are known."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.builder import TinyModel
from pytriattn import LayerStats, StatsError, TriAttentionStats
from pytriattn._native import core
from pytriattn.conversion.files import convert_file, encode_stats
from pytriattn.conversion.formats import parse_foreign
from pytriattn.conversion.importing import Imported, import_stats
from pytriattn.eviction.steps import group_scores, score_keys, select
from pytriattn.gguf.identity import ModelIdentity, model_identity
from pytriattn.model_info.reader import gguf_info
from support.foreign_files import fork_bytes, pt_bytes, random_heads, tria_bytes
from support.tiny_context import Tiny, Tokens

FORMATS = ["fork", "fork-v3", "tria", "pt"]
LLAMA = [(layer, head) for layer in range(3) for head in range(4)]


def calibrated(path: pathlib.Path) -> TriAttentionStats:
    tokens = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
    native = core.calibrate(core.Model(str(path)), tokens, n_ctx=256, n_ubatch=128, n_threads=2)
    layers = tuple(LayerStats.from_native(layer) for layer in native.layers)
    return TriAttentionStats(layers, model_identity(path), native.n_tokens, "ab" * 32)


def imported(data: bytes, path: pathlib.Path, **options: bool) -> Imported:
    info = gguf_info(path)
    return import_stats(parse_foreign(data), info, model_identity(info.path), **options)


def without_unrotated(layer: LayerStats) -> LayerStats:
    """Forget what formats have no room for: dimensions outside those that RoPE is given."""
    dims = np.arange(layer.head_dim)
    outside = (dims < layer.rot_begin) | (dims >= layer.rot_begin + layer.n_rot)
    centre, magnitude = layer.centre.copy(), layer.magnitude.copy()
    centre[:, outside] = 0
    magnitude[:, outside[::2]] = 0
    return replace(layer, centre=centre, magnitude=magnitude)


def assert_same_scores(found: LayerStats, expected: LayerStats, **options: bool) -> None:
    """Compare under the frequencies of `expected`: those measured from llama.cpp's operator, which works in single
    precision.
    """
    found = replace(found, omega=expected.omega, scale=expected.scale)
    keys = np.random.default_rng(1).normal(size=(200, found.n_head_kv, found.head_dim))
    for position in (7, 5000):
        a, b = (score_keys(layer, keys, position, **options) for layer in (found, expected))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))


# --- ours -> foreign -> ours ---


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "arch",
    [
        "llama",
        "qwen3",
        "glm4",
        "stablelm",
        "phi3",
        "gemma3",
        "gemma4",
        "gemma3n",
        "qwen35",
        "llama-ropefreqs",
        "llama-linear",
    ],
)
def test_round_trip(tiny: Tiny, arch: str, format_name: str) -> None:
    """Neighbours and halves, all or a part of a head rotated, sliding, shared and recurrent layers, scaled
    frequencies.
    """
    path = tiny(arch)
    stats = calibrated(path)
    data, notes = encode_stats(stats, gguf_info(path), format_name)
    back = imported(data, path).stats
    assert (back.model, back.n_tokens, back.corpus_sha256) == (stats.model, 0, "")
    assert [layer.layer for layer in back.layers] == [layer.layer for layer in stats.layers]
    for found, expected in zip(back.layers, stats.layers, strict=True):
        for name in ("n_head", "n_head_kv", "head_dim", "rot_begin", "n_rot", "interleaved"):
            assert getattr(found, name) == getattr(expected, name)
        if arch != "phi3":  # LongRoPE: calibrated in a short context, converted for the model's own
            np.testing.assert_allclose(found.omega, expected.omega, rtol=1e-5, atol=1e-9)
        known = without_unrotated(expected)
        np.testing.assert_array_equal(found.centre, known.centre)
        np.testing.assert_array_equal(found.magnitude, known.magnitude)
        assert_same_scores(found, known)
    partial = any(layer.n_rot < layer.head_dim for layer in stats.layers)
    assert any("no room for dimensions" in note for note in notes) == partial
    scaled = arch in ("phi3", "gemma4", "llama-ropefreqs", "llama-linear") and format_name != "fork-v3"
    assert any("scales its RoPE" in note for note in notes) == scaled


@pytest.mark.parametrize("format_name", FORMATS)
def test_layers_without_rope(tiny: Tiny, format_name: str) -> None:
    """Written as bands over the whole head. SmolLM3 is permuted to neighbours, while we pair halves of what does not
    rotate: the centre survives that, magnitudes become estimates."""
    path = tiny("smollm3")
    stats = calibrated(path)
    back = imported(encode_stats(stats, gguf_info(path), format_name)[0], path)
    nope, expected = back.stats.layers[3], stats.layers[3]
    assert nope.n_rot == 0
    np.testing.assert_array_equal(nope.centre, expected.centre)
    np.testing.assert_allclose(nope.magnitude, expected.magnitude, rtol=0.25)
    assert_same_scores(nope, expected, use_norm=False)
    assert any("layers without RoPE" in note for note in back.notes)


def test_latent_attention(tiny: Tiny) -> None:
    """DeepSeek's rotated dimensions come last, which only the forks' version 3 can say."""
    path = tiny("deepseek2")
    stats = calibrated(path)
    back = imported(encode_stats(stats, gguf_info(path), "fork-v3")[0], path).stats
    for found, expected in zip(back.layers, stats.layers, strict=True):
        assert found.rot_begin == 96
        assert_same_scores(found, without_unrotated(expected))
    assert any("not the first" in note for note in encode_stats(stats, gguf_info(path), "fork")[1])


def test_one_record_does_not_hold_layers_that_differ(tiny: Tiny) -> None:
    stats = calibrated(tiny("llama"))
    info = gguf_info(tiny("llama"))
    rope = info.layers[1].rope
    assert rope is not None
    layers = (info.layers[0], replace(info.layers[1], rope=replace(rope, freq_base=5e5)), info.layers[2])
    for format_name in ("fork", "tria"):
        with pytest.raises(StatsError, match=r"one RoPE base.*\[10000.0, 500000.0\].*fork-v3"):
            encode_stats(stats, replace(info, layers=layers), format_name)
    assert encode_stats(stats, replace(info, layers=layers), "pt")
    with pytest.raises(StatsError, match="3 layers.*2 layers"):
        encode_stats(stats, replace(info, layers=layers[:2]), "fork")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("arch", ["llama", "qwen3"])
def test_an_eviction_keeps_the_same_keys(
    tiny: Tiny, random_tokens: Tokens, arch: str, format_name: str, tmp_path: pathlib.Path
) -> None:
    path, kept = tiny(arch), []
    stats = calibrated(path)
    stats.save(tmp_path / "ours.triattention")
    convert_file(tmp_path / "ours.triattention", tmp_path / "foreign", path, format_name=format_name)
    convert_file(tmp_path / "foreign", tmp_path / "back.triattention", path)
    for used in (stats, TriAttentionStats.load(tmp_path / "back.triattention")):
        model = core.Model(str(path))
        eviction = core.EvictionConfig(mode="per_layer_head", budget=96, interval=32, window=16, seed=0)
        context = core.Context(model, core.DecoderParams(eviction=eviction, n_ctx=4096, n_threads=2), used.to_native())
        context.read(0, random_tokens[:300], 0)
        kept.append(
            [context.kept_positions(0, of.layer, h).tolist() for of in context.layers for h in range(of.n_head_kv)]
        )
        assert context.counters().n_evictions >= 2
    assert kept[0] == kept[1]


# --- foreign -> ours ---


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("make", [fork_bytes, tria_bytes, pt_bytes])
def test_bands_lie_where_the_model_has_them(tiny: Tiny, arch: str, make: Callable[..., bytes]) -> None:
    heads = random_heads(LLAMA, 16)
    theta = 1e6 if arch == "qwen2" else 1e4
    data = pt_bytes(heads, head_dim=32) if make is pt_bytes else make(heads, theta=theta)
    for layer in imported(data, tiny(arch)).stats.layers:
        first, second = (slice(0, None, 2), slice(1, None, 2)) if arch == "llama" else (slice(0, 16), slice(16, 32))
        expected = np.stack([heads[layer.layer, head] for head in range(4)], axis=1)
        np.testing.assert_array_equal(layer.centre[:, first], expected[0])
        np.testing.assert_array_equal(layer.centre[:, second], expected[1])
        np.testing.assert_array_equal(layer.magnitude, expected[2])


def test_absent_heads_leave_the_choice_to_the_others(tiny: Tiny) -> None:
    """Heads 0, 1 read KV head 0 and heads 2, 3 KV head 1."""
    path = tiny("llama")
    full = imported(pt_bytes(random_heads(LLAMA, 16), head_dim=32), path).stats
    some = random_heads(LLAMA, 16)
    del some[0, 0], some[1, 2], some[1, 3], some[2, 0]
    found = imported(pt_bytes(some, head_dim=32), path)
    assert [note for note in found.notes if "2 of 12 query heads" in note]
    assert [note for note in found.notes if "1 of 6 KV heads" in note]
    keys = np.random.default_rng(0).normal(size=(50, 2, 32))
    with_all, with_some = (score_keys(stats.layers[0], keys, 60) for stats in (full, found.stats))
    # KV head 0 is decided by head 1 alone, as if it had no other
    np.testing.assert_array_equal(group_scores(with_some, 2)[0], group_scores(with_all[[1, 1, 2, 3]], 2)[0])
    np.testing.assert_array_equal(group_scores(with_some, 2)[1], group_scores(with_all, 2)[1])
    # without any head, the newest keys stay
    blind = select(score_keys(found.stats.layers[1], keys, 60)[None], 2, 20)[0, 1]
    assert np.flatnonzero(blind).tolist() == list(range(30, 50))
    assert found.stats.layers[1].magnitude[2:].max() == 0 < found.stats.layers[1].magnitude[:2].min()


def test_layers_without_full_attention_are_dropped(tiny: Tiny) -> None:
    heads = random_heads([(layer, head) for layer in range(6) for head in range(4)], 48)
    data = fork_bytes(heads, head_dim=96, n_layer=6, n_head_kv=1, theta=1e6, style=0)
    found = imported(data, tiny("gemma3"))
    assert [layer.layer for layer in found.stats.layers] == [2, 5]
    assert any("dropped (4 sliding)" in note for note in found.notes)


@pytest.mark.parametrize("arch", ["stablelm", "glm4"])
def test_bands_over_a_whole_head_of_a_partly_rotated_model(tiny: Tiny, arch: str) -> None:
    """A fork's calibrator writes head_dim / 2 bands for every model: the centre of each dimension is right, lengths of
    pairs that the model has otherwise are not known."""
    kv = 1 if arch == "glm4" else 2
    heads = random_heads(LLAMA, 16)
    found = imported(fork_bytes(heads, n_head_kv=kv, style=0), tiny(arch))
    assert any("only a part of each head" in note and "estimates" in note for note in found.notes)
    layer = found.stats.layers[1]
    halves = layer.centre.reshape(4, 2, 16) if arch == "stablelm" else layer.centre.reshape(4, 16, 2).swapaxes(1, 2)
    np.testing.assert_array_equal(halves, np.stack([heads[1, head][:2] for head in range(4)]))
    energy = np.stack([heads[1, head][2] for head in range(4)]) ** 2
    np.testing.assert_allclose((layer.magnitude**2).sum(axis=1), energy.sum(axis=1), rtol=1e-5)


def test_notes_on_known_traps(tiny: Tiny, tmp_path: pathlib.Path) -> None:
    heads = random_heads(LLAMA, 32)
    qwen3 = {"head_dim": 64, "theta": 1e6}
    assert any("norm of Qwen3" in note for note in imported(tria_bytes(heads, **qwen3), tiny("qwen3")).notes)
    fork = imported(fork_bytes(heads, style=0, **qwen3), tiny("qwen3"))
    assert fork.notes == ()
    assert any("neighbours" in n for n in imported(fork_bytes(heads, style=1, **qwen3), tiny("qwen3")).notes)
    hybrid = random_heads([(layer, head) for layer in (1, 3) for head in range(4)], 8)
    theta = gguf_info(tiny("qwen35")).layers[1].rope.freq_base  # type: ignore[union-attr]
    n_layer = gguf_info(tiny("qwen35")).n_layer
    shape = {"n_layer": n_layer, "theta": theta, "head_dim": 64}
    notes = imported(fork_bytes(hybrid, style=0, **shape), tiny("qwen35")).notes
    assert any("after RoPE" in note for note in notes)
    assert any("16 rotated dimensions of 64" in note for note in notes)
    notes = imported(tria_bytes(hybrid, **{**shape, "head_dim": 16}), tiny("qwen35")).notes
    assert any("calls the 16 rotated dimensions the head" in note for note in notes)
    named = named_llama(tmp_path / "named.gguf", "Tiny Llama")
    other = imported(fork_bytes(random_heads(LLAMA, 16), name="Qwen3.5-27B"), named)
    assert any("'Qwen3.5-27B'" in note and "'Tiny Llama'" in note for note in other.notes)
    assert imported(fork_bytes(random_heads(LLAMA, 16), name="someone/tiny-llama"), named).notes == ()
    scaled = imported(fork_bytes(random_heads(LLAMA[:8], 16), 2, n_layer=2), tiny("llama-linear"))
    assert any("other RoPE frequencies" in note for note in scaled.notes)


def named_llama(path: pathlib.Path, name: str) -> pathlib.Path:
    model = TinyModel("llama", n_layer=3)
    model.bare_keys({"general.name": name})
    model.ends()
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (fork_bytes(random_heads(LLAMA, 16), n_layer=4), "4 layers, this one has 3"),
        (fork_bytes(random_heads(LLAMA, 16), n_head=8), "8 query heads.* 4"),
        (fork_bytes(random_heads(LLAMA, 16), n_head_kv=4), "4 KV heads.* 2"),
        (fork_bytes(random_heads(LLAMA, 16), head_dim=64), "64 dimensions in a head.* 32"),
        (fork_bytes(random_heads(LLAMA, 8)), "8 bands.*32 of 32.*16"),
        (fork_bytes(random_heads(LLAMA, 16), theta=5e5), "base 500000, the model 10000"),
        (fork_bytes(random_heads(LLAMA, 16), 3, theta=5e5), "base 500000, the model 10000"),
        (fork_bytes(random_heads(LLAMA, 16), 3, n_head_kv=4), "4 query heads over 4 KV heads.*4 over 2"),
        (tria_bytes(random_heads(LLAMA, 16), n_layer=5), "5 layers, this one has 3"),
        (tria_bytes(random_heads(LLAMA, 16), theta=1e6), "base 1e.06, the model 10000"),
        (pt_bytes(random_heads(LLAMA[:8], 16)), "last layer in the file is 1.*up to layer 2"),
        (pt_bytes(random_heads([*LLAMA, (5, 0)], 16)), "at least 6 layers, this one has 3"),
        (pt_bytes(random_heads([*LLAMA, (0, 9)], 16)), "head 9 in layer 0.* 4 query heads"),
        (pt_bytes(random_heads([(i, h) for i in range(3) for h in range(2)], 16)), "2 query heads.* 4"),
        (pt_bytes(random_heads(LLAMA, 16), head_dim=128), "128 dimensions in a head.* 32"),
        (pt_bytes(random_heads(LLAMA, 16), num_kv_heads=1), "1 KV heads.* 2"),
    ],
)
def test_what_does_not_fit_names_both_sides(tiny: Tiny, data: bytes, message: str) -> None:
    with pytest.raises(StatsError, match=message):
        imported(data, tiny("llama"))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_that_can_be_read_fits_or_is_refused(tiny: Tiny, data: st.DataObject) -> None:
    heads = random_heads(LLAMA, 16)
    makers = [fork_bytes(heads), fork_bytes(heads, 2), fork_bytes(heads, 3), tria_bytes(heads), tria_bytes(heads, 2)]
    content = bytearray(data.draw(st.sampled_from(makers)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, data.draw(st.sampled_from([64, 300, len(content)])) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    info = gguf_info(tiny("llama"))
    try:
        stats = import_stats(
            parse_foreign(bytes(content)), info, ModelIdentity("", "llama", ""), ignore_rope_theta=True
        ).stats
    except StatsError:
        return
    assert [layer.head_dim for layer in stats.layers] == [32] * 3


def test_an_unknown_architecture_is_told(tiny: Tiny) -> None:
    info = replace(gguf_info(tiny("llama")), is_exact=False)
    found = import_stats(parse_foreign(fork_bytes(random_heads(LLAMA, 16))), info, ModelIdentity("", "llama", ""))
    assert any("is a guess" in note for note in found.notes)


def test_another_rope_base_on_demand(tiny: Tiny) -> None:
    found = imported(fork_bytes(random_heads(LLAMA, 16), theta=5e5), tiny("llama"), ignore_rope_theta=True)
    assert any("base 500000, the model 10000" in note for note in found.notes)
