"""`Llama` for asyncio: one request at a time on a worker thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pytriattn.llama import Llama

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncLlama"]

T = TypeVar("T")
_END = object()


class AsyncLlama:
    """Runs the methods of a `Llama` on a worker thread, so that the event loop goes on.

    Requests wait for each other. A task that is cancelled ends its request at once, in the midst of a long prompt as well.

        async with AsyncLlama(Llama("model.gguf", budget=4096)) as llm:
            answer = await llm.create_chat_completion(messages)
            async for chunk in await llm.create_chat_completion(messages, stream=True):
                ...

    Attributes:
        llm: what is run; leave it alone while requests are under way.
    """

    def __init__(self, llm: Llama) -> None:
        """Take a loaded model, which is closed by `close`."""
        self.llm = llm
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pytriattn")

    @classmethod
    async def load(cls, *args: Any, **settings: Any) -> AsyncLlama:
        """Load a model without blocking the event loop; the arguments are those of `Llama`."""
        return cls(await asyncio.get_running_loop().run_in_executor(None, lambda: Llama(*args, **settings)))

    async def create_completion(self, *args: Any, **settings: Any) -> Any:
        """Return what `Llama.create_completion` returns; with ``stream=True`` an asynchronous iterator."""
        return await self._request(lambda: self.llm.create_completion(*args, **settings), bool(settings.get("stream")))

    async def create_chat_completion(self, *args: Any, **settings: Any) -> Any:
        """Return what `Llama.create_chat_completion` returns; with ``stream=True`` an asynchronous iterator."""
        return await self._request(
            lambda: self.llm.create_chat_completion(*args, **settings), bool(settings.get("stream"))
        )

    async def generate_batch(self, *args: Any, **settings: Any) -> Any:
        """Return what `Llama.generate_batch` returns."""
        return await self._request(lambda: self.llm.generate_batch(*args, **settings), False)

    async def logprobs(self, *args: Any) -> Any:
        """Return what `Llama.logprobs` returns."""
        return await self._request(lambda: self.llm.logprobs(*args), False)

    async def close(self) -> None:
        """Wait for the request under way, then free the model."""
        async with self._lock:
            await self._in_thread(self.llm.close)
        self._thread.shutdown()

    async def __aenter__(self) -> Self:
        """Return the object itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the object."""
        await self.close()

    async def _request(self, work: Callable[[], Any], is_stream: bool) -> Any:
        if is_stream:
            return self._stream(work)
        async with self._lock:
            return await self._in_thread(work)

    async def _stream(self, work: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        async with self._lock:
            chunks = await self._in_thread(work)
            while True:
                chunk: Any = await self._in_thread(lambda: next(chunks, _END))
                if chunk is _END:
                    return
                yield chunk

    async def _in_thread(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.llm.cancel()
            # the next request may not begin before this one has let go of the context
            with contextlib.suppress(Exception):
                await future
            raise
