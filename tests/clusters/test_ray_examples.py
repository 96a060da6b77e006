"""The examples for Ray on a cluster of two nodes on this machine, one of which is lost: ``make test-ray``."""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from models.registry import make_tiny_model  # noqa: E402
from support.paths import ROOT  # noqa: E402

sys.path.insert(0, str(ROOT / "examples"))

import ray_data  # noqa: E402
import ray_serve  # noqa: E402

SETTINGS = {"budget": 128, "window": 32, "interval": 32, "n_ctx": 2048, "n_threads": 1}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with one worker's CPU each, beside the head, which runs none."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"head": 1}})
    made.add_node(num_cpus=2)
    made.add_node(num_cpus=2)
    path = [str(ROOT), str(ROOT / "tests"), str(ROOT / "examples")]
    ray.init(address=made.address, runtime_env={"env_vars": {"PYTHONPATH": ":".join(path), "GOMP_SPINCOUNT": "0"}})
    yield made
    serve.shutdown()
    ray.shutdown()
    made.shutdown()


def lose_a_node(cluster: Any) -> None:
    lost = next(iter(cluster.worker_nodes))
    cluster.remove_node(lost, allow_graceful=False)


def complete(prompt: str, session: str) -> dict:
    body = json.dumps({"prompt": prompt, "n_predict": 8, "temperature": 0, "return_tokens": True}).encode()
    headers = {"Content-Type": "application/json", "serve_multiplexed_model_id": session}
    request = urllib.request.Request("http://127.0.0.1:8000/completion", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict = json.load(answer)
    return found


def test_a_service_that_loses_a_node(cluster: Any, tmp_path: pathlib.Path, long_text: str) -> None:
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    application = ray_serve.Replica.options(autoscaling_config=None, num_replicas=2).bind(
        str(model), {**SETTINGS, "parallel": 4}
    )
    serve.run(application, route_prefix="/")
    prompts = {f"session {n}": long_text[n * 500 : n * 500 + 700] for n in range(4)}
    answers = {session: complete(prompt, session) for session, prompt in prompts.items()}
    for session, prompt in prompts.items():  # where its cache is
        again = complete(prompt + answers[session]["content"] + " and more", session)
        assert again["timings"]["cache_n"] >= len(prompt.encode())
    lose_a_node(cluster)
    cluster.add_node(num_cpus=2)
    end = time.monotonic() + 240
    answered = 0
    while answered < 8 and time.monotonic() < end:
        try:
            session = f"session {answered % 4}"
            assert complete(prompts[session], session)["tokens"] == answers[session]["tokens"]
            answered += 1
        except OSError:
            time.sleep(1)
    assert answered == 8


def test_a_job_that_loses_a_node(cluster: Any, tmp_path: pathlib.Path, long_text: str) -> None:
    model = make_tiny_model("llama", tmp_path, of_bytes=True)
    rows = [{"number": n, "text": long_text[n * 300 : n * 300 + 600]} for n in range(24)]
    questions = ["Who?", "When?"]
    dataset = ray.data.from_items(rows).repartition(12)
    answered = ray_data.ask(
        dataset, str(model), questions, n_workers=2, max_tokens=6, chat_template=CHAT_TEMPLATE, **SETTINGS
    )
    is_lost = threading.Event()

    def lose() -> None:
        lose_a_node(cluster)
        is_lost.set()

    threading.Timer(8.0, lose).start()
    found = {int(row["number"]): list(row["answers"]) for row in answered.take_all()}
    assert is_lost.is_set()
    assert sorted(found) == list(range(24))
    with_one = ray_data.Asker(str(model), questions, {**SETTINGS, "chat_template": CHAT_TEMPLATE}, 6)
    for row in rows[::6]:
        expected = with_one({"text": [row["text"]]})["answers"][0]
        assert found[row["number"]] == list(expected)


CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
