"""pytriattn-plot and the functions behind it: what is drawn, and what a user is told when nothing can be."""

from __future__ import annotations

import builtins
import pathlib
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from typing import Any

import matplotlib.image
from matplotlib.figure import Figure

from pytriattn import Llama, TriAttentionStats
from pytriattn._native import core
from pytriattn.cli.plot import main
from pytriattn.plotting.curves import expected_logits, typical_heads
from pytriattn.plotting.figures import plot_concentration, plot_expected_logits, plot_kept, plot_stats, save_figure
from pytriattn.plotting.kept import KeptKeys, PlotError, kept_keys, load_kept, save_kept

N_TOKENS = 700


@pytest.fixture(scope="module")
def kept_file(
    smollm2: pathlib.Path,
    smollm2_stats: TriAttentionStats,
    long_text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, KeptKeys]:
    """A file of what a run has kept, and the same as the run itself tells."""
    path = tmp_path_factory.mktemp("kept") / "run.npz"
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=128) as llm:
        llm.logprobs(llm.tokenize(long_text[:10_000])[:N_TOKENS])
        save_kept(llm, path)
        return path, kept_keys(llm)


# -- the numbers
# ---------------------------------------------------------------------------------------------------------------


def test_concentration_has_a_row_for_each_head_and_a_column_for_each_band(smollm2_stats: TriAttentionStats) -> None:
    figure = plot_concentration(smollm2_stats)
    axes = figure.axes[0]
    data = np.asarray(axes.images[0].get_array())
    assert data.shape == (30 * 9, 32)
    np.testing.assert_array_equal(data[9 * 7 + 4], smollm2_stats.layers[7].concentration()[4])
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.get_xlabel().startswith("band")
    assert axes.get_ylabel().startswith("layer")
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(i) for i in range(30)]
    assert axes.get_yticks().tolist() == [9 * i for i in range(30)]


def test_heads_of_different_sizes_share_a_picture(smollm2_stats: TriAttentionStats) -> None:
    narrow = smollm2_stats.layers[1]
    narrow = replace(
        narrow,
        n_rot=32,
        omega=narrow.omega[:16],
        centre=np.ascontiguousarray(narrow.centre[:, :32]),
        magnitude=np.ascontiguousarray(narrow.magnitude[:, :16]),
    )
    stats = replace(smollm2_stats, layers=(smollm2_stats.layers[0], narrow))
    data: np.ma.MaskedArray[Any, Any] = np.ma.asarray(plot_concentration(stats).axes[0].images[0].get_array())
    assert data.shape == (18, 32)
    assert data.mask[9:, 16:].all()
    assert not np.ma.getmaskarray(data)[:9].any()


@pytest.mark.parametrize("fixture", ["smollm2_stats", "gemma3_stats"])
@pytest.mark.parametrize("own_key", [True, False])
def test_the_expected_logit_is_what_rope_makes_of_the_centre(
    request: pytest.FixtureRequest, fixture: str, own_key: bool
) -> None:
    layer = request.getfixturevalue(fixture).layers[-1]
    native, centre = layer.to_native(), layer.centre[2].astype(np.float64)
    key = np.random.default_rng(1).normal(size=layer.head_dim) if own_key else centre / np.linalg.norm(centre)
    distances = [0, 1, 7, 1000, 50_000]
    expected = [
        core.testing.rotate(native, centre, 300.0 + d) @ core.testing.rotate(native, key, 300.0) for d in distances
    ]
    found = expected_logits(layer, 2, distances, key if own_key else None)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_a_scale_and_unrotated_dimensions_count(smollm2_stats: TriAttentionStats) -> None:
    layer = smollm2_stats.layers[3]
    omega = layer.omega.copy()
    omega[12:] = 0
    layer = replace(layer, n_rot=24, scale=1.2, omega=omega)
    key = np.random.default_rng(2).normal(size=layer.head_dim)
    expected = [
        core.testing.rotate(layer.to_native(), layer.centre[0].astype(np.float64), float(d))
        @ core.testing.rotate(layer.to_native(), key, 0.0)
        for d in (0, 5, 99)
    ]
    np.testing.assert_allclose(expected_logits(layer, 0, [0, 5, 99], key), expected, rtol=1e-6)


def test_curves_are_of_the_heads_asked_for(smollm2_stats: TriAttentionStats) -> None:
    axes = plot_expected_logits(smollm2_stats, [(3, 1), (29, 8)], max_distance=4096).axes[0]
    lines = axes.get_lines()[:2]
    assert [str(line.get_label()).split(" (")[0] for line in lines] == ["layer 3, head 1", "layer 29, head 8"]
    distances, values = map(np.asarray, lines[1].get_data())
    assert (distances[0], distances[-1]) == (1, 4096)
    logits = expected_logits(smollm2_stats.layers[29], 8, [0, 1, 4096])
    np.testing.assert_allclose(values[[0, -1]], logits[1:] / logits[0])
    assert axes.get_xscale() == "log"
    assert "distance" in axes.get_xlabel()
    assert "logit" in axes.get_ylabel()


def test_typical_heads_are_the_most_the_middle_and_the_least_concentrated(smollm2_stats: TriAttentionStats) -> None:
    means = {(layer, h): r.mean() for layer, rs in smollm2_stats.concentration().items() for h, r in enumerate(rs)}
    most, middle, least = typical_heads(smollm2_stats)
    assert means[most] == max(means.values())
    assert means[least] == min(means.values())
    assert means[most] > means[middle] > means[least]
    one = smollm2_stats.layers[0]
    assert len(typical_heads(replace(smollm2_stats, layers=(one,)))) == 3


def test_kept_keys_come_back_from_their_file(kept_file: tuple[pathlib.Path, KeptKeys]) -> None:
    path, kept = kept_file
    loaded = load_kept(path)
    assert (loaded.model, loaded.n_tokens, loaded.budget) == (kept.model, N_TOKENS, 128)
    assert list(loaded.positions) == [(layer, head) for layer in range(30) for head in range(3)]
    for head, positions in kept.positions.items():
        assert loaded.positions[head].dtype == np.int32
        np.testing.assert_array_equal(loaded.positions[head], positions)


def test_the_picture_of_kept_keys_shows_each_head(kept_file: tuple[pathlib.Path, KeptKeys]) -> None:
    _, kept = kept_file
    axes = plot_kept(kept).axes[0]
    data = np.asarray(axes.images[0].get_array())
    assert data.shape == (90, N_TOKENS)  # as many columns as tokens
    for row, positions in enumerate(kept.positions.values()):
        np.testing.assert_array_equal(np.flatnonzero(data[row]), positions)
    assert data[:, -64:].all()  # the window
    assert data[:, :4].all()  # the sinks
    assert axes.get_xlim() == (0, N_TOKENS)


def test_long_texts_are_drawn_as_shares(kept_file: tuple[pathlib.Path, KeptKeys]) -> None:
    kept = replace(kept_file[1], n_tokens=80_000, positions={(0, 0): np.arange(50, 150, dtype=np.int32)})
    data = np.asarray(plot_kept(kept).axes[0].images[0].get_array())
    assert data.shape == (1, 800)
    np.testing.assert_allclose(data[0, :2], 0.5)
    assert not data[0, 2:].any()


def test_a_loaded_model_is_drawn_as_it_is(tiny: Callable[[str], pathlib.Path]) -> None:
    with Llama(tiny("gemma3"), budget=96, window=16, interval=32, mode="recent") as llm:
        with pytest.raises(PlotError, match="nothing has been read"):
            plot_kept(llm)
        llm.logprobs(list(range(200)))
        axes = plot_kept(llm).axes[0]
        layers = llm.attention_layers
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(layer) for layer in layers]
    assert "200 tokens, budget 96" in axes.get_title()


# -- files
# ---------------------------------------------------------------------------------------------------------------------


def panels(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_all_panels(smollm2_stats: TriAttentionStats, kept_file: tuple[pathlib.Path, KeptKeys]) -> None:
    assert len(panels(plot_stats(smollm2_stats))) == 2
    titles = panels(plot_stats(smollm2_stats, kept=kept_file[1]))
    assert [title.split()[0] for title in sorted(titles)] == ["Concentration", "Expected", "Keys"]


@pytest.mark.slow
def test_png_and_svg(
    sidecar: pathlib.Path,
    smollm2: pathlib.Path,
    kept_file: tuple[pathlib.Path, KeptKeys],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    png, svg = tmp_path / "out.png", tmp_path / "out.SVG"
    assert main([str(sidecar), "-o", str(png), "--kept", str(kept_file[0])]) == 0
    assert main([str(sidecar), "-o", str(svg), "--heads", "0:1, 29:8", "--model", str(smollm2)]) == 0
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [str(png), str(svg)]
    pixels = matplotlib.image.imread(png)
    assert min(pixels.shape[:2]) > 500
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100  # not a blank page
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert "layer 29, head 8" in svg.read_text(
        encoding="utf-8"
    )  # matplotlib writes text as comments beside its outlines


@pytest.mark.slow
def test_the_same_figure_gives_the_same_bytes(smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        save_figure(plot_stats(smollm2_stats), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_name_is_no_formula(
    smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path, recwarn: pytest.WarningsRecorder
) -> None:
    model = replace(smollm2_stats.model, name="$\\frac{1$ \x1b[31m 模型")
    save_figure(plot_stats(replace(smollm2_stats, model=model)), tmp_path / "x.png")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{sidecar}", "-o", "{tmp}/x.pdf"], "must end in .png or .svg"),
        (["{sidecar}", "-o", "{tmp}/x"], "must end in .png or .svg"),
        (["{sidecar}", "-o", "{tmp}/no/folder/x.png"], "No such file"),
        (["{tmp}/none.triattention", "-o", "{tmp}/x.png"], "none.triattention' cannot be read"),
        (["{text}", "-o", "{tmp}/x.png"], "not a .triattention file"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--heads", "30:0"], "no statistics of layer 30"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--heads", "3:9"], "layer 3 has 9 query heads, not a head 9"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--kept", "{tmp}/none.npz"], "none.npz' cannot be read"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--kept", "{tmp}"], "cannot be read"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--kept", "{text}"], "damaged, or is no file of kept keys"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--kept", "{cut}"], "damaged, or is no file of kept keys"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--kept", "{other}"], "the kept keys are of Other"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--model", "{gemma3}"], "but the model is Gemma"),
        (["{sidecar}", "-o", "{tmp}/x.png", "--model", "{tmp}/none.gguf"], "does not exist"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(
    sidecar: pathlib.Path,
    gemma3: pathlib.Path,
    kept_file: tuple[pathlib.Path, KeptKeys],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "text").write_text("Three short words.")
    content = kept_file[0].read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    with np.load(kept_file[0]) as arrays:
        changed = {**arrays, "model": np.array(["Other", "llama", "ab" * 32])}
    np.savez(tmp_path / "other.npz", **changed)
    names = {
        "sidecar": sidecar,
        "gemma3": gemma3,
        "tmp": tmp_path,
        "text": tmp_path / "text",
        "cut": tmp_path / "cut",
        "other": tmp_path / "other.npz",
    }
    assert main([argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("pytriattn-plot: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": np.int64(2)},
        {"n_kept": np.zeros(90, dtype=np.int64)},
        {"n_tokens": np.int64(10)},
        {"model": np.array(["one"])},
        {"layer": np.zeros(3, dtype=np.int32)},
    ],
)
def test_files_of_kept_keys_that_contradict_themselves(
    kept_file: tuple[pathlib.Path, KeptKeys], tmp_path: pathlib.Path, change: dict[str, np.ndarray]
) -> None:
    with np.load(kept_file[0]) as arrays:
        np.savez(tmp_path / "x.npz", **{**arrays, **change})
    with pytest.raises(PlotError, match=r"x\.npz"):
        load_kept(tmp_path / "x.npz")


@pytest.mark.parametrize("heads", ["3", "3:", "a:b", "1:2;3:4", "", "-1:0"])
def test_wrong_heads_are_wrong_usage(sidecar: pathlib.Path, heads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([str(sidecar), "-o", "x.png", f"--heads={heads}"])
    assert error.value.code == 2
    assert "write L:H,L:H" in capsys.readouterr().err


def test_without_matplotlib_there_is_a_hint(
    sidecar: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def fail(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    assert main([str(sidecar), "-o", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert "pip install 'pytriattn[plot]'" in error
    assert error.count("\n") == 1
