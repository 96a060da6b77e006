"""Caches on RPC servers, on loopback: nothing of the engine may assume that it can point into the memory of a cache."""

from __future__ import annotations

import pathlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from models import dense
from pytriattn import ContextError, Llama, ModelLoadError, TriAttentionStats, calibrate
from pytriattn._native import core
from support.engine_runs import KINDS, MODES, SHARED, assert_same, measured, n_layers, read
from support.lora_files import write_lora
from support.rpc_server import RpcServer
from support.tiny_context import Tiny

pytestmark = pytest.mark.slow  # processes, or models that are calibrated


TEXT = "The history of the lighthouse is long, and nobody alive remembers its beginning. " * 14


def near(same: float, other: float) -> float:
    """Return how near results are where both sides compute in the same way, and where they do not: with AMX the CPU
    multiplies quantised weights in a way of its own, and a server that lends the same CPU does not.
    """
    return other if dict(core.backend_features("CPU")).get("AMX_INT8", "0") != "0" else same


@pytest.fixture(scope="module")
def server() -> Iterator[RpcServer]:
    with RpcServer() as running:
        yield running


@pytest.mark.parametrize("cache", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("arch", KINDS)
def test_caches_on_a_server_and_split_with_it_are_those_of_the_cpu(
    tiny: Tiny, server: RpcServer, arch: str, cache: str
) -> None:
    path = tiny(arch)
    expected = read(path, cache=cache)
    for layers in (-1, (n_layers(path) + 1) // 2):
        assert_same(read(path, layers, [server.address], stats=expected.stats, cache=cache), expected)


@pytest.mark.parametrize("mode", [*MODES[1:], "fitted"])
def test_every_mode_on_a_server_and_split_with_it(tiny: Tiny, server: RpcServer, mode: str) -> None:
    path = tiny("llama")
    expected = read(path, mode=mode, cache="q8_0")
    for layers in (-1, 2):
        assert_same(read(path, layers, [server.address], stats=expected.stats, mode=mode, cache="q8_0"), expected)


@pytest.mark.parametrize("arch", [*KINDS, *SHARED])
def test_calibration_sees_through_the_borders_between_devices(tiny: Tiny, server: RpcServer, arch: str) -> None:
    path = tiny(arch)
    expected = measured(core.Model(str(path), 0))
    for layers in range(1, n_layers(path) + 1):
        stats = measured(core.Model(str(path), layers, rpc_servers=[server.address]))
        assert len(stats.layers) == len(expected.layers)
        for found, wanted in zip(stats.layers, expected.layers, strict=True):
            np.testing.assert_array_equal(found.omega, wanted.omega)
            np.testing.assert_allclose(found.centre, wanted.centre, atol=1e-4)
            np.testing.assert_allclose(found.magnitude, wanted.magnitude, atol=1e-4)


@pytest.mark.parametrize("arch", SHARED)
def test_layers_that_share_a_cache_over_devices(tiny: Tiny, server: RpcServer, arch: str) -> None:
    path = tiny(arch)
    expected = read(path)
    assert_same(read(path, (n_layers(path) + 1) // 2, [server.address], stats=expected.stats), expected)


def generate(llm: Llama, n: int = 40) -> str:
    result: Any = llm(TEXT, max_tokens=n, temperature=0)
    return str(result["choices"][0]["text"])


@pytest.mark.slow
def test_a_model_cut_in_half_over_two_servers_decodes_under_a_budget(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, server: RpcServer
) -> None:
    settings: dict[str, Any] = {"triattn_stats": smollm2_stats, "budget": 128, "interval": 32, "n_ctx": 1024}
    with Llama(smollm2, **settings) as llm:
        expected = generate(llm)
        assert list(llm.kv_stats()["device_bytes"]) == ["CPU"]
    with RpcServer() as second:
        servers = [server.address, second.address]
        for split, least, most in ([1, 1], 0.4, 0.6), ([3, 1], 0.65, 0.85):
            with Llama(smollm2, rpc_servers=servers, tensor_split=split, **settings) as llm:
                assert generate(llm) == expected
                stats = llm.kv_stats()
                assert stats["evictions"] >= 2
                by_device = stats["device_bytes"]
                assert set(by_device) == {f"RPC {address}" for address in servers}
                assert sum(by_device.values()) == stats["kv_bytes"]
                assert least < by_device[f"RPC {server.address}"] / stats["kv_bytes"] < most


@pytest.mark.slow
def test_a_state_of_the_cpu_goes_on_on_a_server_and_back(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, server: RpcServer, tmp_path: pathlib.Path
) -> None:
    settings: dict[str, Any] = {
        "triattn_stats": smollm2_stats,
        "budget": 128,
        "interval": 32,
        "n_ctx": 1024,
        "type_k": "q8_0",
    }
    with Llama(smollm2, **settings) as here, Llama(smollm2, rpc_servers=[server.address], **settings) as there:
        tokens = here.tokenize(TEXT)
        for first, second, name in (here, there, "here.state"), (there, here, "there.state"):
            first.reset()
            first.eval(tokens[:150])
            first.save_state(tmp_path / name)
            second.load_state(tmp_path / name)
            first.eval(tokens[150:200])
            second.eval(tokens[150:200])
            assert first.kept_positions(3, 1).tolist() == second.kept_positions(3, 1).tolist()
            np.testing.assert_allclose(
                second._open_context().logits(), first._open_context().logits(), atol=near(1e-2, 1)
            )


def test_adapters_and_embeddings_on_a_server(
    tiny: Tiny, smollm2: pathlib.Path, server: RpcServer, tmp_path: pathlib.Path
) -> None:
    name, rng = "blk.1.attn_q.weight", np.random.default_rng(5)
    n_out, n_in = dense.llama()._tensors[name].shape
    down, up = rng.normal(0, 0.2, (4, n_in)), rng.normal(0, 0.2, (n_out, 4))
    adapter = write_lora(tmp_path / "lora.gguf", {name: (down.astype(np.float32), up.astype(np.float32))})
    text = list(range(100))
    with (
        Llama(tiny("llama"), n_ctx=256) as here,
        Llama(tiny("llama"), n_ctx=256, rpc_servers=[server.address]) as there,
    ):
        plain = here.logprobs(text)
        for llm in (here, there):
            llm.set_loras({adapter: 1.0})
        assert np.abs(here.logprobs(text) - plain).max() > 0.01
        np.testing.assert_allclose(there.logprobs(text), here.logprobs(text), atol=near(1e-2, 1))
    with Llama(smollm2, n_ctx=64) as here, Llama(smollm2, n_ctx=64, rpc_servers=[server.address]) as there:
        np.testing.assert_allclose(there.embed("a text"), here.embed("a text"), atol=near(1e-2, 0.5))


def test_statistics_measured_on_a_server(smollm2: pathlib.Path, server: RpcServer) -> None:
    here = calibrate(smollm2, TEXT, n_tokens=64)
    there = calibrate(smollm2, TEXT, n_tokens=64, rpc_servers=[server.address])
    for found, wanted in zip(there.layers, here.layers, strict=True):
        np.testing.assert_allclose(found.centre, wanted.centre, atol=near(1e-3, 0.2))


@pytest.mark.parametrize(
    "servers",
    [
        "127.0.0.1:50052",
        ["127.0.0.1"],
        ["127.0.0.1:"],
        [":50052"],
        ["127.0.0.1:0"],
        ["127.0.0.1:65536"],
        ["a:1", "a:1"],
        [7],
    ],
)
def test_servers_of_another_form_are_refused(smollm2: pathlib.Path, servers: Any) -> None:
    with pytest.raises(ContextError, match="rpc_servers"):
        Llama(smollm2, rpc_servers=servers)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_does_not_run_is_named_before_the_model_is_read(smollm2: pathlib.Path) -> None:
    address, seen = f"127.0.0.1:{free_port()}", list[float]()
    with pytest.raises(ModelLoadError, match=f"'{address}' cannot be reached .*start pytriattn-rpc-server"):
        Llama(smollm2, rpc_servers=[address], progress=seen.append)
    assert not seen
    with pytest.raises(ModelLoadError, match="'nowhere.invalid:50052' is not known"):
        Llama(smollm2, rpc_servers=["nowhere.invalid:50052"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n\r\n" + bytes(64), "does not answer like an RPC server"),
        ((28).to_bytes(8, "little") + bytes([6, 0, 0]) + bytes(25), r"speaks version 6\.0\.0"),
        # llama.cpp's own server, which knows no kv3
        ((28).to_bytes(8, "little") + bytes([7, 0, 0]) + bytes(25), r"speaks version 7\.0\.0 .* this build 7\.0\.63"),
        (b"", "does not answer"),
    ],
)
def test_other_things_behind_the_port(smollm2: pathlib.Path, answer: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(ModelLoadError, match=message):
            Llama(smollm2, rpc_servers=[f"127.0.0.1:{listener.getsockname()[1]}"])
        thread.join()


def test_more_parts_than_devices_are_refused(smollm2: pathlib.Path, server: RpcServer) -> None:
    with pytest.raises(ModelLoadError, match="tensor_split has 9 numbers"):
        Llama(smollm2, rpc_servers=[server.address], tensor_split=[1.0] * 9)
