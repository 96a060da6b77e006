"""Seeds of several answers, and the bytes of tokens that are parts of characters."""

from __future__ import annotations

from pytriattn import Llama, SamplingParams
from pytriattn._native import core


def test_a_random_seed_is_random_for_every_answer() -> None:
    for params in (SamplingParams(seed=-1), SamplingParams(seed=None)):
        assert [params.native_seed(i) for i in range(3)] == [core.RANDOM_SEED] * 3
    assert [SamplingParams(seed=7).native_seed(i) for i in range(3)] == [7, 8, 9]
    assert core.RANDOM_SEED not in [SamplingParams(seed=2**32 - 2).native_seed(i) for i in range(3)]


def test_bytes_of_parts_of_characters(smollm2_core: Llama) -> None:
    answer = smollm2_core.create_chat_completion(
        [{"role": "user", "content": "x"}],
        grammar='root ::= "\u00e9\U0001f600"',
        logprobs=True,
        top_logprobs=5,
        temperature=0,
    )
    choice = answer["choices"][0]
    content = choice["logprobs"]["content"]
    assert bytes(byte for token in content for byte in token["bytes"]).decode() == choice["message"]["content"]
    assert [len(token["top_logprobs"]) for token in content] == [5] * len(content)
