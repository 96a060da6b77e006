"""A chat model for LangChain (extra ``langchain``).

from pytriattn.integrations.langchain import ChatPytriattn
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from pytriattn.async_llama import AsyncLlama
from pytriattn.integrations import required
from pytriattn.llama import Llama

with required("langchain-core", "langchain"):
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
    from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
    from langchain_core.tools import BaseTool
    from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

__all__ = ["ChatPytriattn"]

_METHODS = ("json_schema", "function_calling", "json_mode")


class ChatPytriattn(BaseChatModel):
    """A GGUF model as a LangChain chat model. It is loaded when it is first asked something.

    Calls from several threads wait for each other; so does whoever calls while a stream is neither finished nor closed.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model_path: str = ""
    """A GGUF file."""
    llama: Llama | None = Field(default=None, exclude=True)
    """A loaded model in place of `model_path`."""
    budget: int | None = None
    """Keys kept per layer and KV head; None: the full cache."""
    n_ctx: int = 0
    """The largest number of positions; 0: the model's own."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The other arguments of `Llama`."""
    temperature: float = 0.2
    """0 always takes the likeliest token."""
    max_tokens: int | None = None
    """At most so many tokens in an answer."""
    seed: int | None = None
    """For the same answer again."""
    stop: list[str] | None = None
    """End before any of these strings."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Other arguments of `Llama.create_chat_completion`: ``top_k``, ``min_p``, ``enable_thinking``, ..."""
    streaming: bool = False
    """Stream even where LangChain asks for a whole answer, so that callbacks see its pieces."""

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _async: tuple[asyncio.AbstractEventLoop, AsyncLlama] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_model(self) -> ChatPytriattn:
        if (self.llama is None) == (not self.model_path):
            raise ValueError("give model_path (a GGUF file) or llama (a loaded Llama), one of them")
        if self.llama is not None and (self.budget is not None or self.n_ctx or self.settings):
            raise ValueError("budget, n_ctx and settings are of no use with a loaded llama; give them to Llama")
        return self

    @property
    def _llm_type(self) -> str:
        return "pytriattn"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model_path": self.model_path or str(self.llama),
            "budget": self.budget,
            "n_ctx": self.n_ctx,
            **self.settings,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "pytriattn"
        params["ls_model_name"] = kwargs.get("model") or self._model_name()
        return params

    def _model_name(self) -> str:
        return self.model_path if self.llama is None else self.llama.identity.name

    def load(self) -> Llama:
        """Return the model, which is loaded first if it is not.

        Raises:
            TriAttnError, TypeError: as `Llama`.
        """
        if self.llama is None:
            self.llama = Llama(self.model_path, budget=self.budget, n_ctx=self.n_ctx, **self.settings)
        return self.llama

    # -- answers
    # ---------------------------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lock:
            return _result(self.load().create_chat_completion(**self._request(messages, stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._lock:
            chunks = self.load().create_chat_completion(stream=True, **self._request(messages, stop, kwargs))
            for chunk in map(_chunk, chunks):
                if run_manager is not None:
                    run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
                yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        async with self._own_turn():
            llm = await self._async_llama()
            return _result(await llm.create_chat_completion(**self._request(messages, stop, kwargs)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with self._own_turn():
            llm = await self._async_llama()
            chunks = await llm.create_chat_completion(stream=True, **self._request(messages, stop, kwargs))
            async with contextlib.aclosing(chunks):
                async for data in chunks:
                    chunk = _chunk(data)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
                    yield chunk

    @contextlib.asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        """Wait for calls of other threads and tasks, without blocking the event loop."""
        waiting = asyncio.get_running_loop().run_in_executor(None, self._lock.acquire)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(lambda _: self._lock.release())
            raise
        try:
            yield
        finally:
            self._lock.release()

    async def _async_llama(self) -> AsyncLlama:
        """Return the model for this event loop; only in an own turn."""
        loop = asyncio.get_running_loop()
        llm = await loop.run_in_executor(None, self.load)
        if self._async is None or self._async[0] is not loop:  # its lock belongs to an event loop
            self._async = (loop, AsyncLlama(llm))
        return self._async[1]

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        entries = convert_to_openai_messages(messages)
        for entry in entries:
            blocks = entry.get("content")
            if isinstance(blocks, list) and any(block.get("type") != "text" for block in blocks):
                raise ValueError(f"this model reads text only, a message has {[block.get('type') for block in blocks]}")
        return {
            "messages": entries,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": (stop if stop is not None else self.stop) or None,
            **self.sampling,
            **kwargs,
        }

    # -- tools and schemas
    # -----------------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools.

        Args:
            tools: anything that LangChain can make a tool of.
            tool_choice: ``auto``, ``none``, ``any`` or ``required`` or True (one has to be called), or the name of a
                tool.
            **kwargs: other arguments of `Llama.create_chat_completion`.
        """
        choice: Any = tool_choice
        if choice is True or choice == "any":
            choice = "required"
        elif isinstance(choice, str) and choice not in ("auto", "none", "required"):
            choice = {"type": "function", "function": {"name": choice}}
        elif choice is False:
            choice = None
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return the model with answers that follow a schema.

        Args:
            schema: a pydantic class (answers are its objects), a TypedDict or a JSON schema (answers are dictionaries).
            include_raw: answer with ``raw``, ``parsed`` and ``parsing_error``.
            method: ``json_schema``: a grammar holds the answer to the schema. ``json_mode``: to JSON of any form.
                ``function_calling``: the answer is the call of a tool, if the model's template knows tools.
            **kwargs: ``strict``, which changes nothing.

        Raises:
            ValueError: `method` is unknown.
        """
        if method not in _METHODS:
            raise ValueError(f"method is {method!r}, it must be one of {', '.join(_METHODS)}")
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        kwargs.pop("strict", None)
        if kwargs:
            raise ValueError(f"unknown argument {sorted(kwargs)[0]!r}")
        response_format: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            if isinstance(schema, type) and issubclass(schema, BaseModel):
                wanted = schema.model_json_schema()  # LangChain's own conversion drops what refers to itself
            else:
                wanted = convert_to_json_schema(schema)
            response_format = {"type": "json_schema", "json_schema": {"schema": wanted}}
        model = self.bind(
            response_format=response_format,
            ls_structured_output_format={"kwargs": {"method": method}, "schema": convert_to_json_schema(schema)},
        )
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _usage(usage: Any) -> UsageMetadata:
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }


def _result(answer: Any) -> ChatResult:
    generations = []
    for choice in answer["choices"]:
        message = choice["message"]
        calls, invalid = [], []
        for call in message.get("tool_calls", []):
            name, text = call["function"]["name"], call["function"]["arguments"]
            try:
                calls.append(tool_call(name=name, args=json.loads(text or "{}"), id=call["id"]))
            except ValueError as error:
                invalid.append(invalid_tool_call(name=name, args=text, id=call["id"], error=str(error)))
        metadata = {"finish_reason": choice["finish_reason"], "model_name": answer["model"]}
        if choice["logprobs"] is not None:
            metadata["logprobs"] = choice["logprobs"]
        thoughts = message.get("reasoning_content")
        generations.append(
            ChatGeneration(
                message=AIMessage(
                    content=message["content"] or "",
                    tool_calls=calls,
                    invalid_tool_calls=invalid,
                    usage_metadata=_usage(answer["usage"]),
                    response_metadata=metadata,
                    additional_kwargs={"reasoning_content": thoughts} if thoughts else {},
                ),
                generation_info=metadata,
            )
        )
    return ChatResult(generations=generations)


def _chunk(data: Any) -> ChatGenerationChunk:
    choice = data["choices"][0]
    delta, is_last = choice["delta"], choice["finish_reason"] is not None
    metadata = {"finish_reason": choice["finish_reason"], "model_name": data["model"]} if is_last else {}
    if choice["logprobs"] is not None:
        metadata["logprobs"] = choice["logprobs"]
    calls = [
        tool_call_chunk(
            name=call["function"].get("name"),
            args=call["function"].get("arguments"),
            id=call.get("id"),
            index=call["index"],
        )
        for call in delta.get("tool_calls", [])
    ]
    thoughts = delta.get("reasoning_content")
    message = AIMessageChunk(
        content=delta.get("content") or "",
        tool_call_chunks=calls,
        usage_metadata=_usage(data["usage"]) if "usage" in data else None,
        response_metadata=metadata,
        additional_kwargs={"reasoning_content": thoughts} if thoughts else {},
        chunk_position="last" if is_last else None,
    )
    return ChatGenerationChunk(message=message, generation_info=metadata or None)
