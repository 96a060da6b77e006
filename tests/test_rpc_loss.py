"""A server that dies: a Python exception at the next step, whatever was being done, and an interpreter that lives on."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import pytest

from pytriattn import TriAttentionStats

HERE = pathlib.Path(__file__).resolve().parent

# each kills the server while ggml is in the middle of something with it
PHASES = {
    "loading": "Llama(model, rpc_servers=[server.address], progress=lambda done: server.kill() if done > 0.3 else None)",
    "calibrating": "calibrate(load(), text, n_tokens=256, n_ctx=64, progress=lambda done, total: server.kill())",
    "prompt": "llm = load(); later(0.2); llm.logprobs(llm.tokenize(text) * 20)",
    "decoding": """
        llm = load()
        for i, chunk in enumerate(llm(text, max_tokens=200, temperature=0, stream=True)):
            if i == 5:
                server.kill()
        """,
    "evicting": """
        llm = load(budget=128, interval=32)
        llm.on_evict(lambda eviction: server.kill())
        llm(text, max_tokens=200, temperature=0)
        """,
    "idle": """
        llm = load()
        llm(text, max_tokens=2)
        server.kill()
        llm.kv_stats()
        llm(text, max_tokens=2)
        """,
    "state": "llm = load(); llm.eval(llm.tokenize(text)); server.kill(); llm.save_state(folder / 'run.state')",
    "one of two": """
        second = RpcServer()
        llm = load(second.address, budget=128, interval=32, tensor_split=[1, 1])
        later(0.3)
        try:
            llm(text, max_tokens=400, temperature=0)
        finally:
            second.kill()
        """,
}

SCRIPT = """
import pathlib, sys, threading
sys.path.insert(0, {here!r})
from rpc_server import RpcServer
from pytriattn import Llama, ModelLoadError, ServerLostError, calibrate

model, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
text = "The history of the lighthouse is long. " * 40
server = RpcServer()
loaded = []

def load(*more, **settings):
    settings = dict(n_ctx=8192, triattn_stats=sys.argv[3], rpc_servers=[server.address, *more]) | settings
    loaded.append(Llama(model, **settings))
    return loaded[-1]

def later(seconds):
    threading.Timer(seconds, server.kill).start()

def phase():
{phase}

try:
    phase()
    sys.exit("no error")
except (ServerLostError, ModelLoadError) as error:
    assert repr(server.address)[1:-1] in str(error) and "load the model again" in str(error), error
    print(type(error).__name__)
for llm in loaded:
    try:
        llm("again")
        sys.exit("no second error")
    except ServerLostError as error:
        pass
    llm.close()
# the same address is good again once a server runs there
with RpcServer(port=server.port) as anew, Llama(model, n_ctx=256, rpc_servers=[anew.address]) as llm:
    llm("Once", max_tokens=2)
print("alive")
"""


@pytest.fixture(scope="module")
def stats_file(smollm2_stats: TriAttentionStats, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("stats") / "smollm2.triattention"
    smollm2_stats.save(path)
    return path


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_that_dies_ends_in_an_exception(
    smollm2: pathlib.Path, tmp_path: pathlib.Path, stats_file: pathlib.Path, phase: str
) -> None:
    script = SCRIPT.format(here=str(HERE), phase=textwrap.indent(textwrap.dedent(PHASES[phase]).strip(), "    "))
    command = [sys.executable, "-c", script, str(smollm2), str(tmp_path), str(stats_file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    expected = "ModelLoadError" if phase == "loading" else "ServerLostError"
    assert result.stdout.split() == [expected, "alive"]
