"""`AsyncLlama` on SmolLM2: the event loop goes on, requests wait for each other, cancelling ends them."""

from __future__ import annotations

import asyncio
import pathlib
import threading
import time
from typing import Any

import pytest

from pytriattn import AsyncLlama, Llama, RequestCancelledError

pytestmark = pytest.mark.filterwarnings("ignore::pytriattn.ContextWarning")
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def test_requests_and_streams(smollm2: pathlib.Path) -> None:
    async def main() -> None:
        async with await AsyncLlama.load(smollm2, n_ctx=1024, seed=1) as llm:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.create_task(tick())
            options: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
            first, second, text = await asyncio.gather(
                llm.create_chat_completion(MESSAGES, **options),
                llm.create_chat_completion(MESSAGES, **options),
                llm.create_completion("Once upon a time", **options),
            )
            assert first["choices"] == second["choices"]
            assert text["choices"][0]["text"]
            chunks = [chunk async for chunk in await llm.create_chat_completion(MESSAGES, stream=True, **options)]
            streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
            assert streamed == first["choices"][0]["message"]["content"]
            assert len(await llm.logprobs([1, 2, 3])) == 2
            assert len(await llm.generate_batch(["a", "b"], max_tokens=2)) == 2
            assert ticks > 5  # it was not blocked
            ticking.cancel()

    asyncio.run(main())


def test_cancelling_ends_a_long_prompt(smollm2: pathlib.Path, long_text: str) -> None:
    async def main() -> None:
        llm = AsyncLlama(Llama(smollm2, n_ctx=60_000, budget=512, mode="recent", seed=1))
        request = asyncio.create_task(llm.create_completion(long_text, max_tokens=5))
        await asyncio.sleep(0.5)
        start = time.monotonic()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert time.monotonic() - start < 2.0
        # and the next request is served
        answer = await llm.create_completion("The capital of France is", max_tokens=4, temperature=0)
        assert "Paris" in answer["choices"][0]["text"]
        await llm.close()

    asyncio.run(main())


def test_a_stream_that_nobody_reads_to_its_end(smollm2: pathlib.Path) -> None:
    async def main() -> None:
        async with AsyncLlama(Llama(smollm2, n_ctx=512, seed=1)) as llm:
            stream = await llm.create_chat_completion(MESSAGES, stream=True, max_tokens=100)
            await anext(stream)
            await stream.aclose()
            assert (await llm.create_completion("The", max_tokens=2))["usage"]["completion_tokens"] == 2

    asyncio.run(main())


@pytest.mark.alone
def test_cancel_from_another_thread(smollm2: pathlib.Path, long_text: str) -> None:
    with Llama(smollm2, n_ctx=60_000, budget=512, mode="recent", seed=1) as llm:
        llm.cancel()  # nothing is under way: nothing happens
        threading.Timer(0.5, llm.cancel).start()
        with pytest.raises(RequestCancelledError, match="interrupted"):
            llm(long_text, max_tokens=5)
        assert llm.n_tokens == 0
        assert "Paris" in llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
