"""`Llama` for asyncio: one request at a time on a worker thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pytriattn.errors import ClosedError, RequestCancelledError
from pytriattn.llama import Llama

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncLlama"]

T = TypeVar("T")
_END = object()
_CANCEL_EVERY_S = 0.02


class AsyncLlama:
    """Runs the methods of a `Llama` on a worker thread, so that the event loop goes on.

    Requests wait for each other. If a task is cancelled, its request ends at once, even in the middle of a long prompt.
    A stream is generated as fast as the model can, whether or not its reader keeps up. To end a stream early, call its
    ``aclose`` or drop it; otherwise the next request waits until the whole stream has been generated.

        async with AsyncLlama(Llama("model.gguf", budget=4096)) as llm:
            answer = await llm.create_chat_completion(messages)
            async for chunk in await llm.create_chat_completion(messages, stream=True):
                ...

    Attributes:
        llm: the model that is run. Do not call it while requests are under way.
    """

    def __init__(self, llm: Llama) -> None:
        """Take a loaded model, which is closed by `close`."""
        self.llm = llm
        self._lock = asyncio.Lock()
        self._left: set[threading.Event] = set()  # of streams under way: set when nobody wants the rest
        self._thread = _one_thread()
        self._process = os.getpid()

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
        """End streams that are still being generated, wait for the request under way, then free the model."""
        for left in list(self._left):
            left.set()
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
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        left = threading.Event()
        producer = asyncio.create_task(self._produce(work, chunks, left))
        try:
            while (chunk := await chunks.get()) is not _END:
                yield chunk
            await producer  # raises what the request raised
        finally:
            left.set()
            if not producer.done():
                producer.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await producer

    async def _produce(
        self, work: Callable[[], Iterator[T]], chunks: asyncio.Queue[Any], left: threading.Event
    ) -> None:
        """Put the chunks of a request into a queue, then `_END`. Setting `left` ends the request early."""
        loop = asyncio.get_running_loop()

        def generate() -> None:
            found = work()
            for chunk in found:
                if left.is_set():
                    return
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        self._left.add(left)
        try:
            async with self._lock:
                await self._in_thread(generate)
        finally:
            self._left.discard(left)
            chunks.put_nowait(_END)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        is_cancelled = threading.Event()

        def run() -> T:
            if is_cancelled.is_set():
                raise RequestCancelledError("the request was cancelled before it began")
            return work()

        if self._process != os.getpid():  # a fork has no threads
            self._thread, self._process = _one_thread(), os.getpid()
        future = asyncio.get_running_loop().run_in_executor(self._thread, run)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            is_cancelled.set()
            # the next request may not begin before this one has let go of the context; a cancellation that comes before
            # the context computes has no effect, so it is repeated
            while not future.done():
                with contextlib.suppress(ClosedError):
                    self.llm.cancel()
                await asyncio.wait([future], timeout=_CANCEL_EVERY_S)
            if not future.cancelled():
                future.exception()  # seen
            raise


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="pytriattn")
