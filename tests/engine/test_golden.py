"""Scores and kept sets against the published implementation's own numbers (tests/data/triattn_golden.json)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pytriattn import LayerStats
from pytriattn.eviction.steps import group_scores, score_keys, select
from support.paths import DATA

GOLDEN = json.loads((DATA / "triattn_golden.json").read_text())
CONFIG, INPUTS, OUTPUTS = GOLDEN["config"], GOLDEN["inputs"], GOLDEN["outputs"]
N_LAYERS, D = CONFIG["n_layers"], CONFIG["head_dim"]
POSITION = CONFIG["round_start"]


def layer_stats(layer: int, *, interleaved: bool = False, scale: float = 1.0) -> LayerStats:
    real = np.array(INPUTS["q_mean_real"], dtype=np.float32)[layer]
    imag = np.array(INPUTS["q_mean_imag"], dtype=np.float32)[layer]
    pairs = np.stack([real, imag], axis=-1 if interleaved else -2)  # [n_head, n_bands, 2] or [n_head, 2, n_bands]
    return LayerStats(
        layer=layer,
        n_head=CONFIG["n_q_heads"],
        n_head_kv=CONFIG["n_kv_heads"],
        rot_begin=0,
        n_rot=D,
        interleaved=interleaved,
        scale=scale,
        omega=np.array(CONFIG["omega"], dtype=np.float64),
        centre=pairs.reshape(len(real), D),
        magnitude=np.array(INPUTS["q_abs_mean"], dtype=np.float32)[layer],
    )


def scores(
    keys: Any = INPUTS["k_rotated_half"],
    position: int = POSITION,
    *,
    interleaved: bool = False,
    scale: float = 1.0,
    **options: bool,
) -> np.ndarray:
    rotated = np.array(keys, dtype=np.float32).transpose(0, 2, 1, 3)  # [n_layers, n_keys, n_head_kv, head_dim]
    return np.stack(
        [
            score_keys(
                layer_stats(i, interleaved=interleaved, scale=scale), rotated[i], position, CONFIG["offsets"], **options
            )
            for i in range(N_LAYERS)
        ]
    )


def assert_close(found: np.ndarray, expected: Any, tolerance: float = 1e-5) -> None:
    expected = np.array(expected)
    assert found.shape == expected.shape
    # relative to the size of the scores: single ones may be close to zero
    assert np.max(np.abs(found - expected)) <= tolerance * np.max(np.abs(expected))


def test_scores() -> None:
    assert_close(scores(), OUTPUTS["score_mean_f64"])
    assert_close(scores(use_norm=False), OUTPUTS["s_trig_mean_over_offsets_f64"])
    assert_close(scores(use_trig=False), OUTPUTS["s_norm_f64"])


def test_scores_agree_with_the_reference_functions_in_float32() -> None:
    # the reference's own float32 error is 1e-4: it computes angles of 65,000 radians in single precision
    assert_close(scores(), OUTPUTS["score_mean_f32"], 2e-4)


def test_interleaved_pairs() -> None:
    variant = GOLDEN["variants"]["interleaved"]
    assert_close(scores(variant["k_rotated"], interleaved=True), variant["score_mean_f64"])


def test_yarn_scale() -> None:
    variant = GOLDEN["variants"]["yarn_scale"]
    # the reference divides by the square of the scale, which the model's own logits contain
    ratio = scores(variant["k_rotated"], scale=variant["attention_scaling"]) / np.array(variant["score_mean_f32"])
    assert np.ptp(ratio) / np.mean(ratio) < 2e-3


def test_large_positions_lose_nothing() -> None:
    variant = GOLDEN["variants"]["large_position"]
    shift, omega = variant["position_shift"], np.array(CONFIG["omega"])
    unrotated = np.array(INPUTS["k_unrotated"], dtype=np.float64)
    half = D // 2
    z = (unrotated[..., :half] + 1j * unrotated[..., half:]) * np.exp(
        1j * omega * (np.array(CONFIG["positions"])[:, None] + shift)
    )
    shifted = np.concatenate([z.real, z.imag], axis=-1)
    assert_close(scores(shifted, variant["round_start"]), OUTPUTS["score_mean_f64"])


def test_concentration() -> None:
    assert_close(np.stack([layer_stats(i).concentration() for i in range(N_LAYERS)]), OUTPUTS["mrl_R_f"])


def test_group_scores() -> None:
    found = np.stack([group_scores(s, CONFIG["n_kv_heads"]) for s in np.array(OUTPUTS["score_mean_f32"])])
    assert_close(found, OUTPUTS["kv_group_max_f32"])


def test_group_scores_leave_protected_keys_out_of_the_statistics() -> None:
    protected = np.arange(CONFIG["n_keys"]) < 3
    z = np.array(OUTPUTS["zscore_hf_prefix3_f32"])  # [n_layers, n_head, n_keys - 3]
    expected = z.reshape(N_LAYERS, CONFIG["n_kv_heads"], CONFIG["group_size"], -1).max(axis=2)
    found = np.stack(
        [group_scores(s, CONFIG["n_kv_heads"], protected)[:, 3:] for s in np.array(OUTPUTS["score_mean_f32"])]
    )
    assert_close(found, expected)


@pytest.mark.parametrize(("name", "mode"), [("union", "global"), ("per_head", "per_head"), ("plph", "per_layer_head")])
@pytest.mark.parametrize("prefix", [0, 3])
def test_kept_sets(name: str, mode: str, prefix: int) -> None:
    expected = OUTPUTS["keep_hf"][f"{name}_P{prefix}"]["sorted"]
    protected = np.arange(CONFIG["n_keys"]) < prefix
    kept = select(scores(), CONFIG["n_kv_heads"], CONFIG["keep_count"], mode=mode, protected=protected)
    assert [[np.flatnonzero(head).tolist() for head in layer] for layer in kept] == expand(expected, mode)


def expand(expected: Any, mode: str) -> list[list[list[int]]]:
    """Return the reference's sets as [layer][kv_head]: it stores only as many as the mode tells apart."""
    if mode == "global":
        return [[expected] * CONFIG["n_kv_heads"]] * N_LAYERS
    return [expected] * N_LAYERS if mode == "per_head" else expected
