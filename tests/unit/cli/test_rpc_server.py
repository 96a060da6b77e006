"""pytriattn-rpc-server, as a program."""

from __future__ import annotations

import pathlib
import signal
import socket

import pytest

from pytriattn.cli.rpc_server import main
from support.rpc_server import RpcServer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port is 70000"),
        (["--device", "TPU7"], "there is no device 'TPU7'; this machine has "),
        (["--threads", "0"], "--threads is 0"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:50052"),
    ],
)
def test_what_cannot_be_done_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["--port", str(other.getsockname()[1])]) == 1
    assert "use another --port" in capsys.readouterr().err


def test_it_lists_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-devices"]) == 0
    assert "CPU\t" in capsys.readouterr().out


def test_the_warning_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "only in networks in which you trust every machine" in " ".join(capsys.readouterr().out.split())


def test_it_listens_on_loopback_and_ends_by_ctrl_c(tmp_path: pathlib.Path) -> None:
    with RpcServer("--cache-dir", str(tmp_path / "weights")) as server:
        assert server.address.startswith("127.0.0.1:")
        assert (tmp_path / "weights").is_dir()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=30) == 130
