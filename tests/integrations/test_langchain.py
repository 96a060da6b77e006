"""The LangChain chat model on SmolLM2: LangChain's own tests, and what they leave out."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from pytriattn import Llama, TriAttentionStats
from support.chat_examples import EXAMPLES, TOOL_TEMPLATE

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")
from langchain_core.messages import (  # noqa: E402
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.tools import tool  # noqa: E402
from langchain_tests.unit_tests import ChatModelUnitTests  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from pytriattn.integrations.langchain import ChatPytriattn  # noqa: E402

MESSAGES = [SystemMessage("Answer in one short sentence."), HumanMessage("What is the capital of France?")]


class City(BaseModel):
    """A city."""

    name: str = Field(pattern="^[A-Z][a-z]{2,8}$")
    country: str = Field(pattern="^[A-Z][a-z]{2,8}$")


@tool
def get_weather(city: Annotated[str, Field(max_length=8)]) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


class TestStandardUnit(ChatModelUnitTests):  # type: ignore[misc]
    """LangChain's own."""

    @property
    def chat_model_class(self) -> type[ChatPytriattn]:
        return ChatPytriattn

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": "model.gguf"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {
            "temperature": 0,
            "max_tokens": 100,
            "stop": ["x"],
        }  # a model on this machine has no timeouts and retries


@pytest.fixture
def benchmark(benchmark: Any) -> Any:
    """Run once what LangChain's tests would time."""
    benchmark.disabled = True
    return benchmark


@pytest.fixture(scope="module")
def llama(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> Iterator[Llama]:
    with Llama(
        smollm2, n_ctx=1024, budget=256, triattn_stats=smollm2_stats, chat_template=TOOL_TEMPLATE, seed=1
    ) as llm:
        yield llm


@pytest.fixture
def model(llama: Llama) -> ChatPytriattn:
    return ChatPytriattn(llama=llama, temperature=0, max_tokens=12)


def test_a_model_of_a_file(smollm2: pathlib.Path) -> None:
    model = ChatPytriattn(model_path=str(smollm2), n_ctx=256, settings={"type_k": "q8_0"}, temperature=0, max_tokens=12)
    assert model.llama is None
    answer = model.invoke(MESSAGES, stop=["."])
    assert model.load().n_ctx() == 256
    assert "Paris" in answer.text
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 10
    model.load().close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give model_path"),
        ({"model_path": "m.gguf", "bugdet": 1}, "bugdet"),
        ({"model_path": "m.gguf", "temperature": "hot"}, "temperature"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatPytriattn(**fields)


def test_bad_calls(model: ChatPytriattn, llama: Llama) -> None:
    with pytest.raises(ValueError, match="of no use with a loaded llama"):
        ChatPytriattn(llama=llama, budget=64)
    with pytest.raises(TypeError, match="unknown argument 'bugdet'"):
        model.invoke("Hi", bugdet=1)
    with pytest.raises(TypeError, match="bugdet"):
        ChatPytriattn(model_path="model.gguf", settings={"bugdet": 1}).invoke("Hi")
    with pytest.raises(ValueError, match="reads text only"):
        model.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])])
    with pytest.raises(ValueError, match="method is 'guess'"):
        model.with_structured_output(City, method="guess")


def test_a_stream_says_the_same(model: ChatPytriattn) -> None:
    whole = model.invoke(MESSAGES)
    assert "Paris" in whole.text
    total: Any = None
    for chunk in model.stream(MESSAGES):
        assert isinstance(chunk, AIMessageChunk)
        total = chunk if total is None else total + chunk
    assert total.text == whole.text
    assert total.usage_metadata == whole.usage_metadata
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


def test_async(model: ChatPytriattn) -> None:
    whole = model.invoke(MESSAGES)

    async def both() -> list[str]:
        first, second = await asyncio.gather(model.ainvoke(MESSAGES), model.ainvoke(MESSAGES))
        pieces = [chunk.text async for chunk in model.astream(MESSAGES)]
        assert len(pieces) > 3
        return [first.text, second.text, "".join(pieces)]

    for _ in range(2):  # each run has an event loop of its own
        assert asyncio.run(both()) == [whole.text] * 3


def test_threads_wait_for_each_other(model: ChatPytriattn) -> None:
    whole = model.invoke(MESSAGES).text
    assert [answer.text for answer in model.batch([MESSAGES] * 3)] == [whole] * 3
    stream = model.stream(MESSAGES)
    next(stream)
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(model.invoke(MESSAGES).text))
    waiting.start()
    rest = [chunk.text for chunk in stream]
    waiting.join()
    assert answers == [whole]
    assert whole.endswith("".join(rest))
    # a stream that is dropped halfway keeps nobody waiting
    next(model.stream(MESSAGES))
    gc.collect()
    assert model.invoke(MESSAGES).text == whole


@pytest.mark.parametrize("schema", [City, City.model_json_schema()])
def test_structured_output(model: ChatPytriattn, schema: Any) -> None:
    short = model.model_copy(update={"max_tokens": 40})
    found: Any = short.with_structured_output(schema).invoke("Paris is in France.")
    city = found if isinstance(found, City) else City(**found)
    assert city.name.isalpha()
    raw: Any = short.with_structured_output(schema, include_raw=True).invoke("Paris is in France.")
    assert (raw["parsed"], raw["parsing_error"]) == (found, None)
    cut: Any = model.model_copy(update={"max_tokens": 2}).with_structured_output(City, include_raw=True).invoke("Paris")
    assert cut["parsed"] is None
    assert cut["parsing_error"] is not None


def test_tools(model: ChatPytriattn) -> None:
    bound = model.model_copy(update={"max_tokens": 80}).bind_tools([get_weather], tool_choice="any")
    asked = [*convert_to_messages(EXAMPLES), HumanMessage("The weather in Paris?")]  # so small a model needs examples
    answer = bound.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    total: Any = None
    for chunk in bound.stream(asked):
        total = chunk if total is None else total + chunk
    assert [(c["name"], c["args"]) for c in total.tool_calls] == [(call["name"], call["args"])]
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert model.invoke([*asked, answer, result]).text
    # cut off in the middle of the arguments
    cut = bound.invoke(asked, max_tokens=answer.usage_metadata["output_tokens"] - 8)  # type: ignore[index]
    assert not cut.tool_calls
    with pytest.raises(ValueError, match="'get_time', which is not among the tools"):
        model.bind_tools([get_weather], tool_choice="get_time").invoke(asked)


def test_a_thread_waits_for_a_task(model: ChatPytriattn) -> None:
    async def main() -> tuple[Any, ...]:
        slow = asyncio.create_task(model.ainvoke("Tell me a story.", max_tokens=60))
        await asyncio.sleep(0.1)
        return await asyncio.gather(asyncio.to_thread(model.invoke, "Hi", max_tokens=4), slow)

    assert all(message.content for message in asyncio.run(main()))


class Node(BaseModel):
    """A class that refers to itself."""

    name: str
    kids: list[Node] = Field(default_factory=list)


def test_a_schema_that_refers_to_itself(model: ChatPytriattn) -> None:
    chain: Any = model.with_structured_output(Node)
    bound = chain.first
    schema = bound.kwargs["response_format"]["json_schema"]["schema"]
    assert schema["$defs"]["Node"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/Node"}
