"""Requests made up by schemathesis, right ones and wrong ones: none is the server's fault, and none ends it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from models.registry import make_tiny_model
from pytriattn.server import Server
from support.server_client import ask
from support.server_routes import describe_routes

N_EXAMPLES = int(os.environ.get("PYTRIATTN_ROUTE_EXAMPLES", "30"))
NOT_THERE = 501  # what this model, or this server as it was started, does not do
schema = schemathesis.openapi.from_dict(describe_routes())


@pytest.fixture(scope="module", params=[None, 128], ids=["without-budget", "budget"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("routes")
    model = make_tiny_model("llama", folder, of_bytes=True)
    held = {} if request.param is None else {"budget": request.param, "window": 32, "interval": 32}
    flags = ["--slots", "--metrics", "--slot-save-path", f"{folder}/", "--predict", "6", "--chat-template", "chatml"]
    with Server(model, n_ctx=512, n_threads=1, parallel=2, arguments=flags, **held) as running:
        yield running
        assert running.is_running, running.log[-2000:]
        answer = ask(f"{running.url}/completion", {"prompt": "Hello", "n_predict": 3, "ignore_eos": True})
        assert answer["tokens_predicted"] == 3


@schema.parametrize()
@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_the_fault_of_the_server(case: schemathesis.Case, server: Server) -> None:
    answer = case.call(base_url=server.url, timeout=120)
    told = answer.content[:500]
    assert answer.status_code < 500 or answer.status_code == NOT_THERE, told
    if answer.status_code >= 400 and told:  # what is no HTTP is refused without a word
        assert b'"error"' in told
