"""Ray Serve: as many `pytriattn-server`s as there is work for, each within a budget.

    pip install pytriattn "ray[serve]"
    python examples/ray_serve.py model.gguf --budget 4096

Each replica runs a server of its own and passes requests on to it, streams too. Their number follows the requests that
wait. A client that sends the header ``serve_multiplexed_model_id`` with a name for its conversation comes back to the
replica that has its cache, as long as that one lives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from ray import serve
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pytriattn.server import Server

MAX_SESSIONS = 1000
"""Conversations that a replica remembers having read; the oldest is forgotten, and may then come to another replica."""
PASSED_ON = ("content-type", "authorization", "x-api-key", "anthropic-version")


@serve.deployment(
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 4},
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=16,
    health_check_period_s=5,
)
class Replica:
    """One server."""

    def __init__(self, model: str, settings: dict[str, Any]) -> None:
        """Start it; `settings` are those of `Server`."""
        self._server = Server(model, **settings)
        self._client: aiohttp.ClientSession | None = None

    def check_health(self) -> None:
        """Let Serve start another replica when this one's server has ended."""
        if not self._server.is_running:
            raise RuntimeError("the server has ended; it said last:\n" + self._server.log[-2000:])

    @serve.multiplexed(max_num_models_per_replica=MAX_SESSIONS)  # type: ignore[untyped-decorator,unused-ignore]
    async def remember(self, session: str) -> str:
        """Let Serve know that this replica has the cache of a conversation."""
        return session

    async def __call__(self, request: Request) -> Response:
        """Answer as the server does."""
        session = serve.get_multiplexed_model_id()
        if session:
            await self.remember(session)
        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        answer = await self._client.request(
            request.method,
            self._server.url + request.url.path,
            params=request.query_params,
            data=await request.body(),
            headers=headers,
        )

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in answer.content.iter_any():
                yield chunk

        return StreamingResponse(
            chunks(),
            status_code=answer.status,
            media_type=answer.headers.get("Content-Type"),
            background=BackgroundTask(answer.release),
        )


def application(model: str, **settings: Any) -> Any:
    """Return what `serve.run` takes: replicas with these settings of `Server`."""
    deployment: Any = Replica  # the decorator has made it one
    return deployment.bind(str(Path(model).resolve()), settings)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budget", type=int, default=4096)
    parser.add_argument("--parallel", type=int, default=4, help="slots of each replica")
    parser.add_argument("--n-ctx", type=int, default=0, help="positions of each slot; 0: the model's own")
    arguments = parser.parse_args()
    serve.run(
        application(arguments.model, budget=arguments.budget, parallel=arguments.parallel, n_ctx=arguments.n_ctx),
        route_prefix="/",
    )
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
