"""What users of llama-cpp-python rely on, tried with one changed import: its high-level interface case by case."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any

import numpy as np
import pytest

import pytriattn
from pytriattn import Llama, LlamaGrammar
from support.tiny_context import Tiny, Tokens

DAYS = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, Monday, Tuesday,"
# a plain transformer, one with recurrent states only in part, and one whose other layers are convolutions
CACHES = ["llama", "qwen3next", "lfm2"]
BUDGETS: list[dict[str, Any]] = [{}, {"budget": 256, "mode": "recent"}]


def text_of(completion: Any) -> str:
    text: str = completion["choices"][0]["text"]
    return text


def greedy(llm: Llama, tokens: list[int], n: int = 3) -> list[int]:
    return list(itertools.islice(llm.generate(tokens, temperature=0.0, ignore_eos=True), n))


def test_the_version_is_known() -> None:
    assert pytriattn.__version__


def test_tokenizing(smollm2_core: Llama) -> None:
    llm = smollm2_core
    tokens = llm.tokenize(b"Hello World")
    assert tokens == llm.tokenize("Hello World")
    assert llm.detokenize(tokens) == "Hello World"
    # this model wants no token before a text
    assert tokens == llm.tokenize("Hello World", add_bos=False)
    as_text, as_token = llm.tokenize("Hello<|im_end|>"), llm.tokenize("Hello<|im_end|>", special=True)
    assert as_text[-1] != llm.token_eos()
    assert as_token[-1] == llm.token_eos()
    assert len(as_token) == 2
    assert llm.detokenize(as_token) == "Hello"
    assert llm.detokenize(as_token, special=True) == "Hello<|im_end|>"
    assert llm.tokenize("") == []


def test_a_model_that_wants_a_first_token_gets_it(gemma3: pathlib.Path) -> None:
    with Llama(gemma3, n_ctx=64) as llm:
        tokens = llm.tokenize("Hello World")
        assert tokens[0] == llm.token_bos()
        assert llm.tokenize("Hello World", add_bos=False) == tokens[1:]
        assert llm.detokenize(tokens) == "Hello World"
        assert llm.tokenize("") == [llm.token_bos()]


@pytest.mark.parametrize("options", BUDGETS, ids=["full", "budget"])
def test_completions(smollm2: pathlib.Path, options: dict[str, Any]) -> None:
    with Llama(smollm2, n_ctx=512, **options, flash_attn=True, seed=1337) as llm:
        first = llm.create_completion(DAYS, max_tokens=5, temperature=0.0, seed=1337)
        assert text_of(first) == " Wednesday, Thursday, Friday"
        assert text_of(llm.create_completion(DAYS, max_tokens=5, temperature=0.0)) == text_of(first)

        answer = llm.create_completion(
            "The capital of france is paris, 'true' or 'false'?:\n",
            max_tokens=4,
            top_k=50,
            top_p=0.9,
            temperature=0.8,
            grammar=LlamaGrammar.from_string('root ::= "true" | "false"'),
        )
        assert text_of(answer) in ("true", "false")


def test_logits_processors(smollm2_core: Llama) -> None:
    llm = smollm2_core
    wanted = llm.tokenize(" rotten", add_bos=False)
    seen: list[tuple[list[int], int]] = []

    def raise_wanted(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        seen.append((tokens.tolist(), logits.size))
        assert logits.dtype == np.float32
        logits[wanted] += 1000
        return logits

    prompt = llm.tokenize("The capital of France is")
    options: dict[str, Any] = {"max_tokens": 3, "temperature": 0.8}
    answer = llm.create_completion(prompt, logits_processor=raise_wanted, logprobs=1, **options)
    assert text_of(answer).startswith(llm.detokenize(wanted[:1]))
    assert [len(tokens) for tokens, _ in seen] == [len(prompt), len(prompt) + 1, len(prompt) + 2]
    assert seen[2][0][: len(prompt)] == prompt
    assert {size for _, size in seen} == {llm.n_vocab()}
    # log-probabilities stay those of the model
    assert answer["choices"][0]["logprobs"]["token_logprobs"][0] < -5  # type: ignore[index,call-overload,operator]

    def undo(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits[wanted] -= 1000
        return logits

    plain = text_of(llm.create_completion(prompt, max_tokens=5, temperature=0.0))
    both = llm.create_completion(prompt, max_tokens=5, temperature=0.0, logits_processor=[raise_wanted, undo])
    assert text_of(both) == plain


def test_logits_processors_that_fail(smollm2_core: Llama) -> None:
    llm = smollm2_core

    def broken(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        llm.create_completion("Hello", logits_processor=broken)
    with pytest.raises(ValueError, match=r"of shape \[5\], it must return logits \[49152\]"):
        llm.create_completion("Hello", logits_processor=lambda tokens, logits: logits[:5])
    with pytest.raises(ValueError, match="it must return"):
        llm.create_completion("Hello", logits_processor=lambda tokens, logits: None)
    with pytest.raises(ValueError, match="must be a function"):
        llm.create_completion("Hello", logits_processor=[3])  # type: ignore[list-item]
    assert text_of(llm.create_completion(DAYS, max_tokens=2, temperature=0.0)) == " Wednesday,"


@pytest.mark.parametrize("options", BUDGETS, ids=["full", "budget"])
def test_a_saved_state_repeats_what_followed(smollm2: pathlib.Path, options: dict[str, Any]) -> None:
    numbers = LlamaGrammar.from_string("root ::= " + " | ".join(f'"{i}"' for i in range(1, 11)))
    with Llama(smollm2, n_ctx=512, **options) as llm:
        llm.eval(llm.tokenize("Pick a number from 1 to 10?:"))
        state = llm.save_state()
        assert state is not None

        def pick(seed: int) -> str:
            prompt = llm.tokenize("Pick a number from 1 to 10?:\n")
            return text_of(llm.create_completion(prompt, max_tokens=4, temperature=1.0, seed=seed, grammar=numbers))

        drawn = [pick(seed) for seed in range(6)]
        assert set(drawn) <= {str(i) for i in range(1, 11)}
        assert len(set(drawn)) > 1
        llm.load_state(state)
        assert pick(3) == drawn[3]


@pytest.mark.parametrize("arch", CACHES)
@pytest.mark.parametrize("options", BUDGETS, ids=["full", "budget"])
def test_an_edited_history_is_read_again(tiny: Tiny, random_tokens: Tokens, arch: str, options: dict[str, Any]) -> None:
    first = random_tokens[:12].tolist()
    second = [first[0], 77, *first[2:]]
    with Llama(tiny(arch), n_ctx=512, **options) as llm:
        greedy(llm, first, 1)
        edited = greedy(llm, second)
    with Llama(tiny(arch), n_ctx=512, **options) as fresh:
        assert greedy(fresh, second) == edited


@pytest.mark.parametrize("arch", CACHES)
@pytest.mark.parametrize("options", BUDGETS, ids=["full", "budget"])
def test_a_text_that_was_evaluated_goes_on_as_a_fresh_one(
    tiny: Tiny, random_tokens: Tokens, arch: str, options: dict[str, Any]
) -> None:
    tokens = random_tokens[:20].tolist()
    with Llama(tiny(arch), n_ctx=512, **options) as fresh:
        expected = greedy(fresh, tokens)
    with Llama(tiny(arch), n_ctx=512, **options) as llm:
        llm.eval(tokens)
        assert (llm.n_tokens, llm.tokens) == (len(tokens), tokens)
        assert list(itertools.islice(llm.generate(None, temperature=0.0, ignore_eos=True), 3)) == expected
        assert llm.n_tokens == len(tokens) + 2  # the last token drawn has not been read
        # the same prompt again, a longer one before it, and a beginning
        assert greedy(llm, tokens) == expected
        llm.reset()
        llm.eval(tokens + random_tokens[500:510].tolist())
        assert greedy(llm, tokens) == expected


@pytest.mark.parametrize("arch", CACHES)
@pytest.mark.parametrize("options", BUDGETS, ids=["full", "budget"])
def test_a_loaded_state_goes_on_as_a_fresh_text(
    tiny: Tiny, random_tokens: Tokens, arch: str, options: dict[str, Any]
) -> None:
    tokens = random_tokens[:20].tolist()
    with Llama(tiny(arch), n_ctx=512, **options) as source:
        expected = greedy(source, tokens)
        source.reset()
        source.eval(tokens[:-1])
        state = source.save_state()
        assert state is not None
    with Llama(tiny(arch), n_ctx=512, **options) as llm:
        llm.eval([9, 8, 7])
        llm.load_state(state)
        assert llm.tokens == tokens[:-1]
        assert greedy(llm, tokens) == expected


def test_embeddings_of_several_texts(smollm2: pathlib.Path) -> None:
    texts = ["Hello World", "A different prompt"]
    with Llama(smollm2, n_ctx=64) as llm:
        alone = [llm.embed(text) for text in texts]
        together = llm.embed(texts)
        turned = llm.embed(texts[::-1])
    for i in range(2):
        np.testing.assert_allclose(together[i], alone[i], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(turned[1 - i], alone[i], rtol=1e-4, atol=1e-4)


def test_embeddings_in_openais_form(smollm2_core: Llama) -> None:
    answer = smollm2_core.create_embedding(["Hello World", "Another"], model="mine")
    assert (answer["object"], answer["model"]) == ("list", "mine")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    row = answer["data"][0]["embedding"]
    assert len(row) == smollm2_core.n_embd()
    np.testing.assert_allclose(row, smollm2_core.embed("Hello World"), rtol=1e-6)
    assert answer["usage"]["prompt_tokens"] == len(smollm2_core.tokenize("Hello World")) + len(
        smollm2_core.tokenize("Another")
    )


def test_small_facts(smollm2_core: Llama, smollm2: pathlib.Path) -> None:
    assert smollm2_core.model_path == str(smollm2)
    assert smollm2_core.detokenize([smollm2_core.token_nl()]) == "\n"


def test_cache_types_by_number(smollm2: pathlib.Path) -> None:
    with (
        Llama(smollm2, n_ctx=256, type_k=8, type_v=8) as numbers,
        Llama(smollm2, n_ctx=256, type_k="q8_0", type_v="q8_0") as names,
    ):
        assert numbers.kv_stats()["kv_bytes"] == names.kv_stats()["kv_bytes"]
    with pytest.raises(pytriattn.ContextError, match="type_k is 12, it must be one of f32"):
        Llama(smollm2, type_k=12)


def test_names_of_others_are_explained(smollm2_core: Llama) -> None:
    with pytest.raises(TypeError, match="unknown argument 'functions': use tools"):
        smollm2_core.create_chat_completion([{"role": "user", "content": "Hi"}], functions=[])
    with pytest.raises(TypeError, match="unknown argument 'tempreature'.*temperature"):
        smollm2_core("Hi", tempreature=0.5)


MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles!') }}{% endif %}"
    "{% endfor %}"
)


def test_chat_templates_of_others(smollm2: pathlib.Path) -> None:
    messages = [
        {"role": "user", "content": "Instruction"},
        {"role": "assistant", "content": "Model answer"},
        {"role": "user", "content": "Follow-up instruction"},
    ]
    with Llama(smollm2, n_ctx=256, chat_template=MISTRAL) as llm:
        llm.create_chat_completion(messages, max_tokens=1)
        text = llm.detokenize(llm.tokens, special=True)
        assert text.endswith("[INST] Instruction [/INST]Model answer<|im_end|>[INST] Follow-up instruction [/INST]")
        with pytest.raises(pytriattn.ChatError, match="Only user and assistant"):
            llm.create_chat_completion([{"role": "critic", "content": "No"}])


COMPOSED: dict[str, Any] = {
    "$defs": {"A": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
EITHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "temperature": {"type": "number"},
        "unit": {"anyOf": [{"type": "string", "enum": ["celsius", "fahrenheit"]}, {"type": "null"}]},
    },
    "required": ["temperature", "unit"],
}


def test_grammars_of_composed_schemas(smollm2_core: Llama) -> None:
    def value(schema: dict[str, Any], bias: dict[int, float] | None = None) -> Any:
        grammar = LlamaGrammar.from_json_schema(json.dumps(schema))
        return json.loads(
            text_of(smollm2_core("JSON:", max_tokens=100, temperature=0.0, grammar=grammar, logit_bias=bias))
        )

    no_spaces = {
        token: -100.0 for token in range(smollm2_core.n_vocab()) if not smollm2_core.detokenize([token]).strip()
    }
    composed = value(COMPOSED, no_spaces)
    assert isinstance(composed["a"]["a"], int) and isinstance(composed["b"], int)
    assert value(EITHER, no_spaces)["unit"] in ("celsius", "fahrenheit", None)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ('root ::= "a', "unexpected end"),
        ("root = 3", "expecting ::="),
        ('root ::= leaf "."', "no rule 'leaf'"),
        ('tree ::= "."', "no rule 'root'"),
        ("# nothing", "no rule 'root'"),
    ],
)
def test_grammars_with_errors(smollm2_core: Llama, capfd: pytest.CaptureFixture[str], rules: str, reason: str) -> None:
    with pytest.raises(pytriattn.GrammarError, match=reason):
        smollm2_core("Tree:", grammar=rules)
    assert capfd.readouterr() == ("", "")


def test_a_recursive_grammar(smollm2_core: Llama) -> None:
    tree = 'leaf ::= "."\nnode ::= leaf | "(" node node ")"\nroot ::= node'
    text = text_of(
        smollm2_core("Tree:", max_tokens=60, temperature=1.0, seed=4, grammar=LlamaGrammar.from_string(tree))
    )
    assert set(text) <= set("().")
    assert text.count("(") >= text.count(")")
