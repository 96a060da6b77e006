"""The plug-in for `llm`, through its commands and in Python, on SmolLM2."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.chat_examples import EXAMPLES, TOOL_TEMPLATE

pytest.importorskip("llm")
import llm  # noqa: E402
from click.testing import CliRunner, Result  # noqa: E402
from llm.cli import cli  # noqa: E402
from llm.plugins import load_plugins, pm  # noqa: E402

import llm_pytriattn  # noqa: E402
from llm_pytriattn import model as plugin_model  # noqa: E402


@pytest.fixture(autouse=True)
def user_dir(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("PYTRIATTN_LLM_MODELS", raising=False)
    load_plugins()
    assert pm.has_plugin("pytriattn"), "the entry point is missing: reinstall the package"
    yield tmp_path
    while plugin_model._loaded:
        plugin_model._loaded.popitem()[1].close()


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, result.output
    return result


def add(path: pathlib.Path, *options: str) -> None:
    run("pytriattn", "add-model", "smol", str(path), "--n-ctx", "1024", *options)


def test_a_prompt_and_a_conversation(smollm2: pathlib.Path, user_dir: pathlib.Path) -> None:
    add(smollm2, "--budget", "256", "--alias", "s", "--option", "type-k", "q8_0", "--option", "window", "32")
    assert json.loads((user_dir / "pytriattn-models.json").read_text()) == {
        "smol": {
            "path": str(smollm2.resolve()),
            "settings": {"type_k": "q8_0", "window": 32, "budget": 256, "n_ctx": 1024},
            "aliases": ["s"],
        }
    }
    assert "pytriattn: smol (aliases: s)" in run("models").output
    assert f'smol, s: {smollm2.resolve()} type_k="q8_0"' in run("pytriattn", "models").output
    options = ("-o", "temperature", "0", "-o", "max_tokens", "12")
    answer = run("-m", "s", "-s", "Answer in one short sentence.", "What is the capital of France?", *options).output
    assert "Paris" in answer
    (loaded,) = plugin_model._loaded.values()
    assert (loaded.budget, loaded.n_ctx()) == (256, 1024)
    n_first = loaded.n_tokens
    assert run("-c", "And of Italy?", *options).output
    assert list(plugin_model._loaded.values()) == [loaded]
    assert loaded.kv_stats()["prompt_tokens_reused"] >= n_first - 1  # the whole first turn
    logged = json.loads(run("logs", "--json", "-n", "1").output)[0]
    assert logged["model"] == "smol"
    assert 0 < logged["output_tokens"] <= 12
    run("pytriattn", "remove-model", "smol")
    assert "smol" not in run("models").output


def test_the_models_file_may_be_elsewhere(
    smollm2: pathlib.Path, user_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTRIATTN_LLM_MODELS", str(user_dir / "mine" / "models.json"))
    add(smollm2)
    assert (user_dir / "mine" / "models.json").is_file()
    assert llm.get_model("smol").model_id == "smol"


def test_in_python(smollm2: pathlib.Path) -> None:
    add(smollm2, "--option", "chat_template", TOOL_TEMPLATE)
    model: Any = llm.get_model("smol")
    pieces = list(model.prompt("What is the capital of France?", temperature=0, max_tokens=10))
    assert len(pieces) > 3
    response = model.prompt("What is the capital of France?", temperature=0, max_tokens=10, stream=False)
    assert response.text() == "".join(pieces)
    usage: Any = response.usage()
    assert 0 < usage.output <= 10
    assert usage.input == len(
        plugin_model._load(model._configured).tokenize(
            "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", special=True
        )
    )
    schema = {"type": "object", "properties": {"name": {"enum": ["Paris", "Rome"]}}, "required": ["name"]}
    assert json.loads(model.prompt("A city", schema=schema, temperature=0).text())["name"] in ("Paris", "Rome")
    with pytest.raises(llm.ModelError, match="must|grammar|schema"):
        model.prompt("A city", schema={"type": "nonsense"}).text()
    with pytest.raises(ValueError, match="top_p"):
        model.prompt("A city", top_p=2)


def test_tools(smollm2: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(smollm2, "--option", "chat_template", TOOL_TEMPLATE)
    model: Any = llm.get_model("smol")
    called: list[str] = []

    def get_weather(city: str) -> str:
        called.append(city)
        return f"It rains in {city}."

    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}
    tool = llm.Tool("get_weather", "The weather of a city.", schema, get_weather)
    loaded = plugin_model._load(model._configured)
    asked: list[list[Any]] = []
    ask = loaded.create_chat_completion

    def with_examples(messages: Any, **request: Any) -> Any:
        asked.append(messages)
        if len(asked) > 1:
            return ask(messages, **{**request, "tool_choice": "none"})
        return ask([*EXAMPLES, *messages], **request)  # so small a model needs them

    monkeypatch.setattr(loaded, "create_chat_completion", with_examples)
    answer = model.chain("The weather in Paris?", tools=[tool], options={"temperature": 0, "max_tokens": 60})
    assert answer.text()
    assert called == ["Paris"]
    user, call, result = asked[1]
    assert user["content"] == "The weather in Paris?"
    assert call["tool_calls"][0]["function"]["name"] == "get_weather"
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    assert (result["role"], result["content"]) == ("tool", "It rains in Paris.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add-model", "a", "{model}", "--option", "bugdet", "1"], "there is no setting 'bugdet'"),
        (["add-model", "gpt-4o", "{model}"], "'gpt-4o' is the name of another model"),
        (["add-model", "a", "{folder}/text.gguf"], "text.gguf"),
        (["remove-model", "b"], "there is no model 'b'; there are none"),
    ],
)
def test_mistakes(arguments: list[str], message: str, smollm2: pathlib.Path, user_dir: pathlib.Path) -> None:
    (user_dir / "text.gguf").write_text("no model")
    filled = [text.format(model=smollm2, folder=user_dir) for text in arguments]
    assert message in run("pytriattn", *filled, code=1).output
    assert not (user_dir / "pytriattn-models.json").exists()


def test_a_damaged_models_file(user_dir: pathlib.Path) -> None:
    (user_dir / "pytriattn-models.json").write_text('{"smol": 5}')
    assert "put it right, or delete it" in run("pytriattn", "models", code=1).output


def test_llm_starts_without_llama_cpp() -> None:
    code = f"import sys, {llm_pytriattn.__name__}; print([m for m in sys.modules if m.startswith('pytriattn')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
