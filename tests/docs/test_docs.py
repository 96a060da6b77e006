"""The documentation: the site builds, every block of Python runs, every command exists, every public name is
explained.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import importlib.metadata
import inspect
import io
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import pytriattn
from pytriattn import Llama, TriAttentionStats
from support import doc_pages
from support.chat_examples import TOOL_TEMPLATE, WEATHER
from support.doc_pages import DOCS, Block, python_blocks
from support.paths import ROOT

EXECUTED = ["README.md", "docs/index.md", "docs/tutorial.md", "docs/moving-from-llama-cpp-python.md"]
EXECUTED += ["docs/images-and-drafts.md"]
MOST_TOKENS = 40  # a test has no hours


# -- blocks of Python
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(
    tmp_path: pathlib.Path, smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, monkeypatch: pytest.MonkeyPatch
) -> pathlib.Path:
    """A folder with the files that the pages name."""
    (tmp_path / "model.gguf").symlink_to(smollm2)
    smollm2_stats.save(tmp_path / "model.triattention")
    (tmp_path / "style.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def readme_names(long_text: str, smollm2: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What README.md leaves to its reader: texts, messages, a hub, and an adapter that fits."""
    adapters: list[object] = []
    monkeypatch.setattr("pytriattn.llama.download", lambda repo_id, filename, **_: smollm2)
    monkeypatch.setattr(Llama, "set_loras", lambda llm, scales: adapters.append(scales))
    init = Llama.__init__

    def with_tools(llm: Llama, *args: Any, **settings: Any) -> None:
        init(llm, *args, **{"chat_template": TOOL_TEMPLATE, "n_ctx": 512, **settings})

    monkeypatch.setattr(Llama, "__init__", with_tools)
    return {
        "text": long_text[:1000],
        "prompts": ["One", "Two"],
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [WEATHER],
        "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        "AsyncLlama": pytriattn.AsyncLlama,
    }


def run(page: str, block: Block, names: dict[str, Any]) -> None:
    code = re.sub(r"max_tokens=([\d_]+)", lambda m: f"max_tokens={min(int(m[1]), MOST_TOKENS)}", block.code)
    code = "\n" * (block.line - 1) + code  # an error names the line of the page
    compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_every_block_of_python_runs(page: str, workplace: pathlib.Path, request: pytest.FixtureRequest) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    if page == "README.md":
        names |= request.getfixturevalue("readme_names")
    blocks = python_blocks(ROOT / page)
    assert sum(not block.is_run for block in blocks) <= 1
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks:
            if block.is_run:
                run(page, block, names)
    assert printed.getvalue().strip()
    for value in names.values():
        if isinstance(value, Llama):
            value.close()


def test_blocks_of_other_pages_are_python() -> None:
    for page in doc_pages.pages():
        name = page.relative_to(ROOT).as_posix()
        for block in python_blocks(page) if name not in EXECUTED else []:
            compile(block.code, f"{name}:{block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


# -- commands
# ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def help_of() -> Callable[[str], str]:
    programs = {
        p.name: p for p in importlib.metadata.distribution("pytriattn").entry_points if p.group == "console_scripts"
    }
    texts: dict[str, str] = {}

    def text(name: str) -> str:
        assert name in programs, f"there is no program {name}"
        if name not in texts:
            main = programs[name].load()
            command = [sys.executable, "-c", "import sys; from {} import {} as m; sys.argv = ['p', '--help']; m()"]
            command[-1] = command[-1].format(main.__module__, main.__name__)
            texts[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return texts[name]

    return text


@pytest.mark.slow
@pytest.mark.parametrize("page", doc_pages.pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist_with_their_options(page: pathlib.Path, help_of: Callable[[str], str]) -> None:
    for command in doc_pages.commands(page):
        program, *words = command.split()
        known = help_of(program)
        for option in [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), f"{page.name}: {program} has no option {option}"


# -- public names
# --------------------------------------------------------------------------------------------------------------


INTERNAL = {
    "KeyScoreOptions": ["to_native"],
    "Llama": {
        *("chat_templates", "call_number", "has_logits", "n_sequences"),
        *(
            "check_tokens",
            "check_prompt",
            "tokenize_prompt",
            "read_prompt",
            "next_logprobs",
            "is_end",
            "make_sampler",
            "score",
        ),
        *("draw", "draw_each", "start_sequence", "warn_beyond_training", "abandon", "forget_cancellation"),
        *("split_prompt", "image_marker"),
    },
    "CacheOptions": {"check", "make_context", "describe_state"},
    "EvictionSettings": {"check_prompt", "to_native"},
    "LlamaPromptLookupDecoding": {"to_native"},
    "RopeSettings": {"check", "to_native"},
    "SamplingParams": {"to_native", "make_sampler", "native_seed", "prepare"},
    "LayerStats": {"to_native", "from_native"},
    "TriAttentionStats": {"to_native"},
}
"""Members that other modules of the package call; the reference leaves them out."""
UNTOLD: dict[str, set[str]] = {}
"""Errors that a docstring does not name yet."""


def public_functions() -> list[tuple[str, Any]]:
    """Functions, and methods of classes, that `pytriattn.__all__` gives to users."""
    found = []
    for name in pytriattn.__all__:
        value = getattr(pytriattn, name)
        if inspect.isfunction(value):
            found.append((name, value))
        elif inspect.isclass(value) and not issubclass(value, (BaseException, dict)):
            for attribute, member in inspect.getmembers(value):
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                is_ours = inspect.isfunction(function) and function.__module__.startswith("pytriattn")
                if (
                    is_ours
                    and function.__doc__
                    and not attribute.startswith("_")
                    and attribute not in INTERNAL.get(name, ())
                ):
                    found.append((f"{name}.{attribute}", function))
    return found


def documented(text: str, section: str) -> str:
    """Return the text of a docstring's section."""
    match = re.search(rf"^{section}:\n((?:    .*\n?|\n)*)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    return match[1] if match else ""


def test_every_public_name_has_a_docstring() -> None:
    for name in pytriattn.__all__:
        value = getattr(pytriattn, name)
        if callable(value):
            assert (inspect.getdoc(value) or "").strip(), name
            members = (
                inspect.getmembers(value) if inspect.isclass(value) and value.__module__.startswith("pytriattn") else []
            )
        for attribute, member in members:
            is_ours = getattr(getattr(member, "__func__", member), "__module__", None) or ""
            if not attribute.startswith("_") and callable(member) and str(is_ours).startswith("pytriattn"):
                assert (inspect.getdoc(member) or "").strip(), f"{name}.{attribute}"


@pytest.mark.parametrize(
    ("name", "function"), public_functions(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_parameters_and_errors_are_documented(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    names = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls") and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    arguments = documented(text, "Args")
    forwards = "what `Llama." in text or "arguments are those of `Llama`" in text
    if arguments:
        missing = [n for n in names if not re.search(rf"^    \**{n}: \S", arguments, re.MULTILINE)]
        assert not missing, f"{name}: Args lacks {missing}"
    elif not forwards:
        # with one or two, a sentence tells more than a list
        assert len(names) <= 2, f"{name} has no Args"
    raised = documented(text, "Raises")
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            error = node.exc.func.id
            is_told = re.search(rf"\b{error}\b", raised) or error in UNTOLD.get(name, ())
            assert is_told, f"{name} raises {error}, its docstring does not say so"


def test_every_argument_of_llama_is_documented() -> None:
    arguments = documented(Llama.__doc__ or "", "Args")
    names = list(inspect.signature(Llama.__init__).parameters)[1:]
    listed = re.findall(r"^    (\w+): \S", arguments, re.MULTILINE)
    assert sorted(names) == sorted(listed)


# -- the site
# ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: pathlib.Path) -> None:
    html = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    for name in pytriattn.__all__:
        assert f'id="pytriattn.{name}"' in html or name == "__version__", name
    assert "pytriattn.__version__" in html
    for name, function in public_functions():
        # an alias is told of where its function is
        own = name.rpartition(".")[0] + "." + function.__name__ if "." in name else name
        assert f'id="pytriattn.{own}"' in html, name
    for name, members in INTERNAL.items():
        for member in members:
            assert f'id="pytriattn.{name}.{member}"' not in html, f"{name}.{member}"
    for argument in list(inspect.signature(Llama.__init__).parameters)[1:]:
        assert f"<code>{argument}</code>" in html, argument


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site: pathlib.Path) -> None:
    for page in site.rglob("*.html"):
        outside = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?:[^\" >]+)", page.read_text(encoding="utf-8")
        )
        assert not outside, page


def test_the_number_of_architectures() -> None:
    table = (DOCS / "supported-models.md").read_text(encoding="utf-8").partition("|---|")[2]
    names = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ") and "| passes" in line}
    assert f"**[{len(names)} architectures](supported-models.md)**" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_pictures_are_small_and_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    pictures = sorted((DOCS / "pictures").iterdir())
    assert len(pictures) >= 4
    for picture in pictures:
        assert picture.stat().st_size < 100_000, picture.name
        assert f"(pictures/{picture.name})" in shown


@pytest.mark.slow
def test_pictures_are_drawn_by_their_program(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = importlib.import_module("docs_pictures")
    drawn.draw_all(tmp_path, n_tokens=400)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in (DOCS / "pictures").iterdir())
    for picture in tmp_path.iterdir():
        assert 10_000 < picture.stat().st_size < 100_000, picture.name
    same = (tmp_path / "compaction.svg").read_text(encoding="utf-8").count("<path")
    assert same == (DOCS / "pictures" / "compaction.svg").read_text(encoding="utf-8").count("<path")
