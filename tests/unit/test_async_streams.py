"""`AsyncLlama`: streams that are left, and tasks that are cancelled early."""

from __future__ import annotations

import asyncio
import pathlib
import time

import pytest

from pytriattn import AsyncLlama, Llama


def test_a_stream_that_is_left_but_not_dropped(smollm2: pathlib.Path) -> None:
    async def main() -> None:
        async with AsyncLlama(Llama(smollm2, n_ctx=512, seed=1)) as llm:
            stream = await llm.create_completion("Once", max_tokens=20, stream=True, ignore_eos=True)
            async for _ in stream:
                break
            answer = await llm.create_completion("The", max_tokens=2, ignore_eos=True)
            assert answer["usage"]["completion_tokens"] == 2
            endless = await llm.create_completion("Once", max_tokens=None, stream=True, ignore_eos=True)
            async for _ in endless:
                break
        # leaving the block ends it

    asyncio.run(asyncio.wait_for(main(), 60))


def test_an_error_of_a_stream_reaches_its_reader(smollm2: pathlib.Path) -> None:
    async def main() -> None:
        async with AsyncLlama(Llama(smollm2, n_ctx=256, seed=1)) as llm:
            with pytest.raises(ValueError, match="the prompt is empty"):
                async for _ in await llm.create_completion("", stream=True):
                    pass

    asyncio.run(main())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_task_that_is_cancelled_early(smollm2: pathlib.Path, turns: int) -> None:
    async def main() -> None:
        async with AsyncLlama(Llama(smollm2, n_ctx=4096, seed=1)) as llm:
            task = asyncio.create_task(llm.create_completion("word " * 3000, max_tokens=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            start = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert llm.llm.n_tokens < 3000, f"read whole, in {time.monotonic() - start:.1f} s"

    asyncio.run(main())


def test_an_idle_cancellation_is_forgotten(smollm2: pathlib.Path) -> None:
    with Llama(smollm2, n_ctx=512) as llm:
        llm.eval(llm.tokenize("The capital of France is"))
        llm.cancel()
        assert "Paris" in llm.detokenize(llm.generate(None, max_tokens=3, temperature=0))
        llm.cancel()
        assert len(llm.logprobs(llm.tokenize("Water boils at a temperature of"))) > 3
