"""The lm-evaluation-harness model on SmolLM2 and a task of three questions, without a network."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pytriattn import ContextFullError, InvalidTokenError, Llama, TriAttentionStats
from pytriattn.generation.continuations import ContinuationScorer

pytest.importorskip("lm_eval")
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from pytriattn.integrations.lm_eval import PytriattnLM  # noqa: E402

QUESTIONS = [
    {"question": "The capital of France is", "choices": ["London", "Paris", "Rome"], "answer": 1},
    {"question": "The opposite of hot is", "choices": ["cold", "warm", "a table"], "answer": 0},
    {"question": "Two plus two is", "choices": ["nine", "green", "four"], "answer": 2},
]
TASKS = {
    "capitals": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
""",
    "says": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 8}
metric_list: [{metric: exact_match}]
""",
    "reads": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}."
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, text in TASKS.items():
        where = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{where}{text}")
    return folder


@pytest.fixture(autouse=True)
def own_caches(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@pytest.fixture(scope="module")
def lm(smollm2: pathlib.Path) -> Iterator[PytriattnLM]:
    lm = PytriattnLM(str(smollm2), n_ctx=512)
    yield lm
    lm.llm.close()


@pytest.fixture(scope="module")
def small_lm(smollm2: pathlib.Path, smollm2_stats: TriAttentionStats) -> Iterator[PytriattnLM]:
    lm = PytriattnLM(str(smollm2), n_ctx=512, budget=96, interval=32, window=16, triattn_stats=smollm2_stats)
    yield lm
    lm.llm.close()


def ask(kind: Any, *arguments: Any) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=args, idx=0) for args in arguments]


def evaluate(lm: PytriattnLM, folder: pathlib.Path, *names: str) -> dict[str, Any]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(lm, tasks=list(names), task_manager=manager, bootstrap_iters=0)
    assert results is not None
    return results["results"]  # type: ignore[no-any-return]


def log_softmax(llm: Llama, tokens: list[int], n_before: int) -> np.ndarray[Any, Any]:
    """Log-probabilities of the tokens after the first `n_before`, and whether each was the likeliest, from the bare
    logits.
    """
    context = llm._open_context()
    llm.reset()
    rows = []
    for token in tokens[:-1]:
        context.step([0], [token])
        rows.append(context.logits().astype(np.float64))
    llm.reset()
    logits = np.array(rows[n_before - 1 :])
    logits -= logits.max(axis=1, keepdims=True)
    values = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    after = np.array(tokens[n_before:])
    return np.stack([values[np.arange(len(after)), after], values.argmax(axis=1) == after])


def test_scores_are_those_of_the_bare_logits(tiny: Callable[[str], pathlib.Path]) -> None:
    """One token at a time through a model in f32, softmax in numpy: nothing shared with the scorer but the model."""
    with Llama(tiny("llama"), n_ctx=256, type_k="f32", type_v="f32") as llm:
        tokens = np.random.default_rng(5).integers(0, 250, 40).tolist()
        score = ContinuationScorer(llm).score(tokens[:30], tokens[30:])
        expected = log_softmax(llm, tokens, 30)  # other steps, which round otherwise
        np.testing.assert_allclose(score.logprobs, expected[0], atol=2e-3)
        assert (score.is_best == expected[1]).all()
        best = llm.generate(tokens[:30], 3, temperature=0)
        assert ContinuationScorer(llm).score(tokens[:30], list(best)).is_greedy


@pytest.mark.parametrize(("name", "n_reused"), [("lm", 41 + 128 + 141), ("small_lm", 32 + 41 + 32 + 141)])
def test_scores_are_bit_for_bit_those_of_logprobs(
    name: str, n_reused: int, request: pytest.FixtureRequest, long_text: str
) -> None:
    """Whole steps (128 and 32 tokens) are shared until an eviction (at 128); texts that differ in the last token alone
    always.
    """
    llm: Llama = request.getfixturevalue(name).llm
    tokens = llm.tokenize(long_text)[:150]
    scorer = ContinuationScorer(llm)
    texts = [(tokens[:n], after) for n in (40, 140) for after in (tokens[n : n + 4], tokens[n : n + 1], tokens[5:6])]
    scores = [scorer.score(*text) for text in texts]  # each from what the one before has left
    assert (scorer.n_reused, scorer.n_read) == (n_reused, sum(len(a) + len(b) for a, b in texts) - n_reused)
    for (before, after), score in zip(texts, scores, strict=True):
        assert (score.logprobs == llm.logprobs(before + after)[len(before) - 1 :]).all()
    if name == "small_lm":
        assert llm.kv_stats()["evictions"] > 0


def test_bad_texts_are_refused(lm: PytriattnLM) -> None:
    scorer = ContinuationScorer(lm.llm)
    with pytest.raises(InvalidTokenError):
        scorer.score([], [1])
    with pytest.raises(InvalidTokenError):
        scorer.score([1], [10**6])
    with pytest.raises(ContextFullError, match="600 tokens are more than n_ctx 512"):
        scorer.score([1] * 599, [2])
    with pytest.raises(ValueError, match="leaves no room for its context"):
        lm.loglikelihood(ask("loglikelihood", ("a", " b" * 600)))


def test_loglikelihood(lm: PytriattnLM) -> None:
    asked = [
        ("The capital of France is", " Paris"),
        ("The capital of France is", " a green table"),
        ("", "Once"),
        ("x ", "y"),
    ]
    answers = lm.loglikelihood(ask("loglikelihood", *asked), disable_tqdm=True)
    assert answers[0][0] > answers[1][0] + 5
    assert (answers[0][1], answers[1][1]) == (True, False)
    tokens = lm.llm.tokenize("The capital of France is a green table")
    n_before = len(lm.llm.tokenize("The capital of France is"))
    assert answers[1][0] == pytest.approx(lm.llm.logprobs(tokens)[n_before - 1 :].sum(), abs=1e-4)
    # without a context the token that begins a text stands before; a space goes to the continuation
    tokens = [lm.llm.token_bos(), *lm.llm.tokenize("Once")]
    assert answers[2][0] == pytest.approx(lm.llm.logprobs(tokens).sum(), abs=1e-4)
    assert answers[3][0] == pytest.approx(lm.llm.logprobs(lm.llm.tokenize("x y"))[0], abs=1e-4)


def test_texts_longer_than_the_context_are_read_in_windows(
    lm: PytriattnLM, long_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm, "max_length", 64)
    tokens = lm.tok_encode(long_text[:400], add_special_tokens=False)
    assert 63 < len(tokens) < 126
    (total,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (long_text[:400],)), disable_tqdm=True)
    first = lm.llm.logprobs([lm.prefix_token_id, *tokens[:63]])
    second = lm.llm.logprobs(tokens[-64:])[63 - len(tokens) :]
    assert total == pytest.approx(float(first.sum() + second.sum()), rel=1e-5)


def test_generate_until(lm: PytriattnLM, smollm2: pathlib.Path) -> None:
    options = {"until": ["\n", "."], "max_gen_toks": 8}
    asked = [("The capital of France is", options), ("Once upon a", {**options, "until": [" time"]})]
    answers = lm.generate_until(ask("generate_until", *asked), disable_tqdm=True)
    assert answers == [" Paris", ""]
    with pytest.raises(TypeError, match="num_beams"):
        lm.generate_until(ask("generate_until", ("a", {**options, "num_beams": 2})), disable_tqdm=True)
    batched = PytriattnLM(str(smollm2), n_ctx=256, batch_size=2)
    try:
        assert batched.generate_until(ask("generate_until", *asked), disable_tqdm=True) == answers
    finally:
        batched.llm.close()


def test_chat_templates(lm: PytriattnLM) -> None:
    history = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    prompt = lm.apply_chat_template(history)
    assert prompt == "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    begun = lm.apply_chat_template([*history, {"role": "assistant", "content": "Hello"}], add_generation_prompt=False)
    assert begun == prompt + "Hello"
    assert "im_start" in lm.chat_template(True)
    assert lm.tokenizer_name == "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("name", ["lm", "small_lm"])
def test_a_task_of_our_own(name: str, tasks: pathlib.Path, request: pytest.FixtureRequest) -> None:
    lm = request.getfixturevalue(name)
    results = evaluate(lm, tasks, *TASKS)
    assert results["capitals"]["acc,none"] == 1.0
    assert results["says"]["exact_match,none"] >= 0
    assert 1 < results["reads"]["byte_perplexity,none"] < 10


def test_the_command(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, tasks: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    smollm2_stats.save(tmp_path / "smollm2.triattention")
    settings = f"pretrained={smollm2},budget=256,n_ctx=1024,triattn_stats={tmp_path / 'smollm2.triattention'}"
    command = [sys.executable, "-m", "pytriattn.integrations.lm_eval", "run", "--model", "pytriattn"]
    command += ["--model_args", settings, "--tasks", "capitals"]
    command += ["--include_path", str(tasks), "--output_path", str(tmp_path / "results.json"), "--apply_chat_template"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "|capitals|" in done.stdout
    (results,) = tmp_path.glob("results*.json")
    assert json.loads(results.read_text())["config"]["budget"] == 256
