"""The type KV3 in each set of instructions that this machine has: its error, its bytes, and that all variants agree."""

from __future__ import annotations

import ctypes
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.kv3 import BLOCK, BLOCK_BYTES, LEVELS, decode, feedback_bytes, read_feedback, scales
from support.paths import ROOT, TESTS

SOURCES = ROOT / "vendor/llama.cpp/kv3"
GGML = ROOT / "vendor/llama.cpp/upstream/ggml"
INCLUDES = (GGML / "include", GGML / "src", SOURCES)
CALLS = TESTS / "support/kv3_calls.cpp"
CENTROIDS = np.array([0.245094, 0.756005, 1.343909, 2.151946])

ARM_COMPILER, ARM_EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
# name: compiler flags, and the flags of /proc/cpuinfo that it takes to run it; 64-bit ARM is emulated
VARIANTS = {
    "generic": (["-DKV3_GENERIC"], set()),
    "avx2": (["-mavx2", "-mfma", "-mf16c"], {"avx2", "fma", "f16c"}),
    "avx512": (
        ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
        {"avx512f", "avx512bw", "avx512vl", "f16c"},
    ),
    "avx512vnni": (
        ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni", "-mavx2", "-mfma", "-mf16c"],
        {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "f16c"},
    ),
    "neon": (["-march=armv8-a"], set()),
    "neon-dotprod": (["-march=armv8.2-a+dotprod"], set()),
}

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.skipif(
        platform.machine() != "x86_64" or not shutil.which("c++") or not GGML.is_dir(),
        reason="needs x86-64 Linux, a compiler and llama.cpp's headers",
    ),
]


@dataclass(frozen=True)
class Kernels:
    """The functions of one compiled variant, on numpy arrays."""

    library: ctypes.CDLL

    def quantise(self, values: np.ndarray, reference: bool = False) -> np.ndarray:
        values = np.ascontiguousarray(values, np.float32)
        rows = np.zeros(values.size // BLOCK * BLOCK_BYTES, np.uint8)
        function = self.library.quantize_row_kv3_ref if reference else self.library.quantize_row_kv3
        function(_pointer(values), _pointer(rows), ctypes.c_int64(values.size))
        return rows

    def quantise_fed_back(self, values: np.ndarray, feedback: bytes, head_dim: int) -> np.ndarray:
        values, of_heads = np.ascontiguousarray(values, np.float32), np.frombuffer(feedback, np.uint8).copy()
        rows = np.zeros(values.size // BLOCK * BLOCK_BYTES, np.uint8)
        self.library.quantize_row_kv3_fed_back(
            _pointer(values), _pointer(rows), _pointer(of_heads), ctypes.c_int64(head_dim), ctypes.c_int64(values.size)
        )
        return rows

    def dequantise(self, rows: np.ndarray) -> np.ndarray:
        values = np.zeros(rows.size // BLOCK_BYTES * BLOCK, np.float32)
        self.library.dequantize_row_kv3(_pointer(rows), _pointer(values), ctypes.c_int64(values.size))
        return values

    def dot(self, rows: np.ndarray, query: np.ndarray) -> float:
        result = ctypes.c_float()
        zero = ctypes.c_size_t(0)
        self.library.ggml_vec_dot_kv3_q8_0(
            ctypes.c_int(rows.size // BLOCK_BYTES * BLOCK),
            ctypes.byref(result),
            zero,
            _pointer(rows),
            zero,
            _pointer(query),
            zero,
            ctypes.c_int(1),
        )
        return result.value

    def add_weighted(self, total: np.ndarray, rows: np.ndarray, weight: float) -> np.ndarray:
        total = np.array(total, np.float32)
        self.library.ggml_vec_mad_kv3(
            ctypes.c_int64(total.size), _pointer(total), _pointer(rows), ctypes.c_float(weight)
        )
        return total


@dataclass(frozen=True)
class EmulatedKernels:
    """The same functions of a variant for another processor, in an emulator."""

    command: tuple[str, ...]

    def _call(self, name: str, n: int, *arrays: np.ndarray, weight: float = 0) -> bytes:
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        arguments = [*self.command, name, str(n), repr(float(np.float32(weight)))]
        return subprocess.run(arguments, input=data, stdout=subprocess.PIPE, check=True).stdout

    def quantise(self, values: np.ndarray, reference: bool = False) -> np.ndarray:
        name = "reference" if reference else "quantise"
        return np.frombuffer(self._call(name, values.size, values.astype(np.float32)), np.uint8)

    def quantise_fed_back(self, values: np.ndarray, feedback: bytes, head_dim: int) -> np.ndarray:
        given = np.frombuffer(feedback, np.uint8)
        found = self._call("fed_back", values.size, values.astype(np.float32), given, weight=head_dim)
        return np.frombuffer(found, np.uint8)

    def dequantise(self, rows: np.ndarray) -> np.ndarray:
        return np.frombuffer(self._call("dequantise", rows.size // BLOCK_BYTES * BLOCK, rows), np.float32)

    def dot(self, rows: np.ndarray, query: np.ndarray) -> float:
        return float(np.frombuffer(self._call("dot", rows.size // BLOCK_BYTES * BLOCK, rows, query), np.float32)[0])

    def add_weighted(self, total: np.ndarray, rows: np.ndarray, weight: float) -> np.ndarray:
        found = self._call("add_weighted", total.size, rows, total.astype(np.float32), weight=weight)
        return np.frombuffer(found, np.float32)


AnyKernels = Kernels | EmulatedKernels
Compile = Callable[[str], AnyKernels]


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def q8_0(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of q8_0 as bytes, and the values that they stand for."""
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(1) / 127).astype(np.float16)
    numbers = np.round(blocks / np.maximum(scale.astype(np.float32), 1e-9)[:, None]).astype(np.int8)
    rows = np.concatenate([scale[:, None].view(np.uint8).reshape(-1, 2), numbers.view(np.uint8)], axis=1)
    return rows.reshape(-1), (numbers * scale.astype(np.float32)[:, None]).reshape(-1)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    folder = tmp_path_factory.mktemp("kv3")
    made: dict[str, Kernels | EmulatedKernels] = {}
    has = set(pathlib.Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split())

    def build(name: str) -> AnyKernels:
        flags, needed = VARIANTS[name]
        if not needed <= has:
            pytest.skip(f"this machine cannot run {name}")
        is_arm = name.startswith("neon")
        if is_arm and not (shutil.which(ARM_COMPILER) and shutil.which(ARM_EMULATOR)):
            pytest.skip(f"needs {ARM_COMPILER} and {ARM_EMULATOR}")
        if name not in made:
            target = folder / f"{name}.so"
            command = [ARM_COMPILER, "-static", CALLS] if is_arm else ["c++", "-shared", "-fPIC"]
            command += ["-std=c++17", "-O3", "-w", *flags, *(f"-I{path}" for path in INCLUDES)]
            subprocess.run([*command, SOURCES / "kv3.cpp", SOURCES / "kv3_cpu.cpp", "-o", target], check=True)
            made[name] = EmulatedKernels((ARM_EMULATOR, str(target))) if is_arm else Kernels(ctypes.CDLL(str(target)))
        return made[name]

    return build


@pytest.fixture(scope="module", params=list(VARIANTS))
def kernels(request: pytest.FixtureRequest, compiled: Compile) -> AnyKernels:
    return compiled(request.param)


def test_error_on_normal_rows(kernels: AnyKernels) -> None:
    values = (
        np.random.default_rng(1)
        .standard_normal(1 << (16 if isinstance(kernels, EmulatedKernels) else 20))
        .astype(np.float32)
    )
    for scale in (1e-3, 1.0, 300.0):
        found = kernels.dequantise(kernels.quantise(values * scale))
        error = ((found / scale - values) ** 2).mean() / (values**2).mean()
        assert 0.029 < error <= 0.036, scale


def test_the_levels_are_the_centroids_of_lloyd_and_max(kernels: AnyKernels) -> None:
    """A scale of exactly 1 shows the levels themselves: within a five-hundredth of the centroids."""
    rows = np.zeros(BLOCK_BYTES, np.uint8)
    rows[:16], rows[24] = 0b11100100, 15 << 3
    found = kernels.dequantise(rows).reshape(4, 16)
    np.testing.assert_allclose(found, np.repeat(CENTROIDS[:, None], 16, axis=1), atol=2e-3)
    rows[16:24] = 0xFF
    np.testing.assert_array_equal(kernels.dequantise(rows).reshape(4, 16), -found)


def test_three_and_an_eighth_bits(kernels: AnyKernels) -> None:
    assert kernels.quantise(np.ones(256)).nbytes * 8 / 256 == 3.125


@settings(max_examples=60, deadline=None, database=None)
@given(
    values=arrays.arrays(
        np.float32, st.sampled_from([64, 128, 256]), elements=st.floats(-3e4, 3e4, width=32, allow_subnormal=False)
    )
)
def test_properties_of_any_row(compiled: Compile, values: np.ndarray) -> None:
    kernels = compiled("generic")
    rows = kernels.quantise(values)
    found = kernels.dequantise(rows)
    # blocks know nothing of each other
    for i in range(0, values.size, BLOCK):
        alone = kernels.quantise(values[i : i + BLOCK])
        np.testing.assert_array_equal(rows[i // BLOCK * BLOCK_BYTES :][:BLOCK_BYTES], alone)
    # never worse than all zeros, but for values below the least scale; signs are kept
    error = ((found - values).reshape(-1, BLOCK) ** 2).sum(1)
    power = (values.reshape(-1, BLOCK) ** 2).sum(1)
    assert (error <= power * 1.0001 + BLOCK * 2.0**-34).all()
    assert (np.sign(found)[found != 0] == np.where(values < 0, -1, 1)[found != 0]).all()
    # what is quantised already stays
    np.testing.assert_array_equal(kernels.dequantise(kernels.quantise(-values)), -found) if (
        values != 0
    ).all() else None


def test_all_variants_agree(compiled: Compile, kernels: AnyKernels) -> None:
    generic, rng = compiled("generic"), np.random.default_rng(2)
    for n in (64, 128, 192, 256, 576):
        values = (rng.standard_normal(n) * rng.uniform(0.01, 30)).astype(np.float32)
        rows = generic.quantise(values)
        # sums in another order may decide a tie otherwise, but not the bulk of a row
        assert (kernels.quantise(values) == rows).mean() > 0.95
        np.testing.assert_array_equal(kernels.dequantise(rows), generic.dequantise(rows))
        query, as_numbers = q8_0(rng.standard_normal(n).astype(np.float32))
        exact = float(generic.dequantise(rows).astype(np.float64) @ as_numbers)
        size = float(np.abs(generic.dequantise(rows)) @ np.abs(as_numbers))
        assert abs(kernels.dot(rows, query) - exact) <= 1e-6 * size
        total = rng.standard_normal(n).astype(np.float32)
        for weight in (1.0, 0.37, 1e-4, 0.0):
            expected = total + weight * generic.dequantise(rows).astype(np.float64)
            np.testing.assert_allclose(kernels.add_weighted(total, rows, weight), expected, rtol=2e-6, atol=1e-5)


def test_every_byte_pattern_is_read_alike(kernels: AnyKernels) -> None:
    """Blocks of random bytes with every finite scale: also those that no quantiser writes."""
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (248, BLOCK_BYTES), dtype=np.uint8)
    rows[:, 24] = np.arange(248)
    query, as_numbers = q8_0(rng.standard_normal(BLOCK).astype(np.float32))
    for row in rows[:: 16 if isinstance(kernels, EmulatedKernels) else 1]:
        values = kernels.dequantise(row)
        np.testing.assert_allclose(values, decode(row), rtol=1e-6)
        size = float(np.abs(values) @ np.abs(as_numbers))
        assert abs(kernels.dot(row, query) - float(values.astype(np.float64) @ as_numbers)) <= 1e-6 * size
        np.testing.assert_allclose(kernels.add_weighted(np.zeros(BLOCK), row, 1.0), values, rtol=1e-6)


def test_zeros_and_values_that_are_no_numbers(kernels: AnyKernels) -> None:
    assert not kernels.quantise(np.zeros(64)).any()
    assert not kernels.dequantise(kernels.quantise(np.zeros(64))).any()
    for wrong in (np.nan, np.inf, -np.inf):
        values = np.ones(128, np.float32)
        values[3] = wrong
        found = kernels.dequantise(kernels.quantise(values))
        assert np.isnan(found[:64]).all()
        np.testing.assert_allclose(found[64:], 1, atol=0.1)
        assert np.isnan(kernels.add_weighted(np.zeros(128), kernels.quantise(values), 0.5)[:64]).all()


def test_the_reference_is_what_the_backend_computes(kernels: AnyKernels) -> None:
    values = np.random.default_rng(4).standard_normal(1 << 14).astype(np.float32)
    assert (kernels.quantise(values) == kernels.quantise(values, reference=True)).mean() > 0.99


def test_a_great_scale_saturates(kernels: AnyKernels) -> None:
    """Half floats end at 65,504, and so do f16 caches; a larger scale becomes the largest."""
    found = kernels.dequantise(kernels.quantise(np.full(64, 1e6)))
    assert np.isfinite(found).all()
    assert (found > 1e5).all()


def queries(d: int) -> tuple[np.ndarray, bytes]:
    """Return the mean square of some queries, most of them alike, and the feedback that follows from it."""
    rng = np.random.default_rng(d)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    square = (basis / np.arange(1, d + 1) ** 1.5) @ basis.T
    factor = np.linalg.cholesky(square[::-1, ::-1])[::-1, ::-1]
    diagonal = np.diag(factor)
    return square, feedback_bytes(diagonal**2, factor / diagonal)


def seen(error: np.ndarray, square: np.ndarray) -> float:
    rows = error.reshape(-1, len(square))
    return float(np.einsum("ni,ij,nj->", rows, square, rows))


@pytest.mark.parametrize("d", [64, 128, 256])
def test_queries_see_less_of_an_error_that_is_fed_back(compiled: Compile, kernels: AnyKernels, d: int) -> None:
    """For several heads in one row; all variants alike."""
    square, of_head = queries(d)
    values = np.random.default_rng(5).standard_normal(96 * d).astype(np.float32)
    of_row = of_head * (values.size // d)
    found = kernels.dequantise(kernels.quantise_fed_back(values, of_row, d)) - values
    nearest = kernels.dequantise(kernels.quantise(values)) - values
    generic = compiled("generic")
    as_generic = generic.dequantise(generic.quantise_fed_back(values, of_row, d)) - values
    assert seen(found, square) < 0.45 * seen(nearest, square)
    assert (found**2).sum() < 2 * (nearest**2).sum()
    assert abs(seen(found, square) / seen(as_generic, square) - 1) < 0.05


@pytest.mark.parametrize("d", [64, 192])
def test_each_value_pays_for_the_errors_before_it(kernels: AnyKernels, d: int) -> None:
    """It is the level that is nearest to what is left of it, but for ties that rounding decides."""
    _, of_head = queries(d)
    _, back = read_feedback(of_head, d)
    values = (np.random.default_rng(6).standard_normal((40, d)) * 3).astype(np.float32)
    rows = np.stack([kernels.quantise_fed_back(row, of_head, d) for row in values])
    scale = np.repeat(scales()[rows.reshape(-1, BLOCK_BYTES)[:, 24]].reshape(40, -1), BLOCK, axis=1)
    errors = decode(rows) - values
    target = values - errors @ np.triu(back, 1)
    cuts = (LEVELS[1:] + LEVELS[:-1]) / 2
    level = LEVELS[(np.abs(target)[..., None] > cuts * scale[..., None]).sum(-1)] * scale
    agrees = np.isclose(np.where(target < 0, -level, level), decode(rows), rtol=1e-5)
    assert agrees.mean() > 0.999


def test_without_feedback_levels_are_the_nearest(kernels: AnyKernels) -> None:
    plain = feedback_bytes(np.ones(128), np.zeros((128, 128)))
    values = np.random.default_rng(7).standard_normal(8 * 128).astype(np.float32)
    found = (kernels.dequantise(kernels.quantise_fed_back(values, plain * 8, 128)) - values).reshape(-1, BLOCK)
    nearest = (kernels.dequantise(kernels.quantise(values)) - values).reshape(-1, BLOCK)
    assert ((found**2).sum(1) <= (nearest**2).sum(1) * 1.00001).all()
    assert not kernels.dequantise(kernels.quantise_fed_back(np.zeros(128), plain, 128)).any()


def test_no_error_of_what_is_no_number_is_fed_back(kernels: AnyKernels) -> None:
    _, of_head = queries(192)
    values = np.random.default_rng(8).standard_normal(192).astype(np.float32)
    values[70] = np.nan
    found = kernels.dequantise(kernels.quantise_fed_back(values, of_head, 192))
    assert np.isnan(found[64:128]).all()
    assert np.isfinite(np.delete(found, slice(64, 128))).all()
