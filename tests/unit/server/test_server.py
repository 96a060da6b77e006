"""A server within a budget: what it answers, keeps, reuses and refuses."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pytriattn import BackendError, Llama, TriAttentionStats
from pytriattn.server import Server
from support.server_client import ask, metric

pytestmark = pytest.mark.slow

BUDGET = 256
N_CTX = 6144


@pytest.fixture(scope="module")
def server(smollm2: pathlib.Path, sidecar: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--metrics", "--slots", "--slot-save-path", str(tmp_path_factory.mktemp("slots")), "--cache-ram", "0"]
    with Server(
        smollm2, budget=BUDGET, triattn_stats=sidecar, parallel=2, n_ctx=N_CTX, n_threads=1, arguments=flags
    ) as running:
        yield running


def complete(server: Server, prompt: str, slot: int = 0, **settings: object) -> dict:
    body = {"prompt": prompt, "temperature": 0, "n_predict": 24, "id_slot": slot, "return_tokens": True, **settings}
    answer: dict = ask(f"{server.url}/completion", body)
    return answer


def in_slot(server: Server, slot: int) -> dict:
    found: dict = ask(f"{server.url}/slots")[slot]["triattention"]
    return found


def erase(server: Server, slot: int = 0) -> None:
    assert "n_erased" in ask(f"{server.url}/slots/{slot}?action=erase", {})


@pytest.mark.parametrize("n_characters", [600, 6000])
def test_it_writes_what_llama_writes(
    smollm2: pathlib.Path, sidecar: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str, n_characters: int
) -> None:
    """The same question, the same evictions: the same greedy text, in a prompt that fits and in one that does not."""
    prompt = long_text[:n_characters]
    flags = ["--slots", "--ctx-checkpoints", "0"]  # which would divide the prompt in another way
    with Server(smollm2, budget=BUDGET, triattn_stats=sidecar, n_ctx=N_CTX, n_threads=1, arguments=flags) as running:
        answer = complete(running, prompt)
        assert (in_slot(running, 0)["evictions"] > 0) == (n_characters > 1000)
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=BUDGET, n_ctx=N_CTX, n_threads=1) as llama:
        assert llama(prompt, max_tokens=24, temperature=0.0)["choices"][0]["text"] == answer["content"]


def test_slots_stay_within_the_budget(server: Server, long_text: str) -> None:
    erase(server)
    before = metric(server.url, "triattention_evictions_total")
    answer = complete(server, long_text[:9000], n_predict=200, ignore_eos=True)
    assert answer["tokens_evaluated"] > 1500 and answer["tokens_predicted"] == 200
    slot = in_slot(server, 0)
    assert BUDGET <= slot["resident_keys"] < BUDGET + 2 * 128
    read = answer["tokens_evaluated"] + answer["tokens_predicted"] - 1  # the last one is not read
    assert slot["evicted_tokens"] == read - slot["resident_keys"]
    assert slot["saved_bytes"] == slot["evicted_tokens"] * 30 * 3 * 64 * 2 * 2  # layers, heads, K and V in f16
    assert metric(server.url, "triattention_evictions_total") == before + slot["evictions"]
    assert ask(f"{server.url}/props")["triattention"]["budget"] == BUDGET


def test_which_tokens_are_the_question(server: Server, long_text: str) -> None:
    """As `/slots` tells: the prompt's last tokens, or what a request names."""
    prompt = long_text[:3000]
    tokens = ask(f"{server.url}/tokenize", {"content": prompt, "add_special": True})["tokens"]
    n = len(tokens)

    def taken(text: str = prompt, **settings: object) -> list[int] | None:
        erase(server)
        assert "status" not in complete(server, text, n_predict=1, **settings)
        found: list[int] | None = in_slot(server, 0)["question"]
        return found

    assert taken() == [n - 64, n]
    assert taken(triattention_question=20) == [n - 20, n]
    assert taken(triattention_question=None) is None and taken(triattention_question=0) is None
    assert taken(long_text[:600]) is None  # nothing is evicted
    words = max(prompt[500:2000].splitlines()[1:-1], key=len).strip()
    begin, end = taken(triattention_question=words) or (0, 0)
    text = ask(f"{server.url}/detokenize", {"tokens": tokens[begin:end]})["content"]
    assert words in text and len(text) < len(words) + 20
    begin, end = taken(triattention_question=long_text[1000:2500]) or (0, 0)
    assert end - begin == 128  # the last ones of many
    for question, message in (
        ("What is love?", "not in the prompt"),
        (129, "it must be from 0 to 128"),
        (-1, "it must be from 0 to 128"),
        (1.5, "it must be a text"),
    ):
        answer = complete(server, prompt, triattention_question=question)
        assert answer["status"] == 400 and message in answer["error"]["message"]
    answer = complete(server, prompt, triattention_question=100, triattention_budget=90)
    assert answer["status"] == 400 and "longer than the budget of 90" in answer["error"]["message"]


def test_the_question_of_a_chat_is_that_of_llama(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, server: Server, long_text: str
) -> None:
    """What the user said last, long or short, and not what was said or looked up since."""
    told = [
        {"role": "user", "content": long_text[:3000]},
        {"role": "assistant", "content": "I have read it."},
    ]
    chats = [
        [*told, {"role": "user", "content": "And?"}],
        [*told, {"role": "user", "content": long_text[500:950]}],
        [{"role": "user", "content": long_text[:3000] + " What is the code of the vault?"}],
        [*told, {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": long_text[3000:3400]}],
        [*told, {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two?"}]}],
    ]
    with Llama(smollm2, triattn_stats=smollm2_stats, budget=BUDGET, n_ctx=N_CTX, n_threads=1) as llama:
        for messages in chats:
            erase(server)
            ask(f"{server.url}/v1/chat/completions", {"messages": messages, "max_tokens": 1, "id_slot": 0})
            llama.create_chat_completion(messages, max_tokens=1)
            taken = llama.kv_stats()["question"]
            assert taken is not None and in_slot(server, 0)["question"] == [*taken]


def test_a_growing_conversation_is_never_read_twice(server: Server, long_text: str) -> None:
    erase(server)
    messages = [{"role": "system", "content": "Answer in one sentence."}]
    read = 0
    for turn in range(4):
        messages.append({"role": "user", "content": long_text[turn * 2000 : (turn + 1) * 2000]})
        body = {"messages": messages, "max_tokens": 20, "temperature": 0, "id_slot": 0}
        answer = ask(f"{server.url}/v1/chat/completions", body)
        usage = answer["usage"]
        # all but the last token that was generated, which no step has read, and what the template puts behind it
        assert usage["prompt_tokens_details"]["cached_tokens"] >= read - 1
        read = usage["total_tokens"]
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    assert in_slot(server, 0)["evictions"] > 4


def test_an_edited_history_is_read_anew(server: Server, long_text: str) -> None:
    erase(server)
    complete(server, long_text[:6000])
    edited = complete(server, "X" + long_text[:6000])
    assert edited["timings"]["cache_n"] == 0
    erase(server)
    assert complete(server, "X" + long_text[:6000])["tokens"] == edited["tokens"]


def logprobs_of(answer: dict) -> np.ndarray:
    return np.array([token["logprob"] for token in answer["completion_probabilities"]])


def test_a_slot_goes_on_from_its_file(server: Server, long_text: str) -> None:
    """The keys then lie in other cells: sums round otherwise, which may decide between keys of nearly equal scores."""
    erase(server)
    complete(server, long_text[:6000], n_predict=4)
    before = in_slot(server, 0)
    assert ask(f"{server.url}/slots/0?action=save", {"filename": "evicted.bin"})["n_saved"] > 1000
    more = long_text[:6000]
    expected = complete(server, more + long_text[6000:8000], n_probs=1)
    erase(server)
    assert in_slot(server, 0)["resident_keys"] == 0
    assert ask(f"{server.url}/slots/1?action=restore", {"filename": "evicted.bin"})["n_restored"] > 1000
    found = complete(server, more + long_text[6000:8000], slot=1, n_probs=1)
    assert found["timings"]["cache_n"] == expected["timings"]["cache_n"] > 1000
    assert found["tokens"][:8] == expected["tokens"][:8]
    assert np.abs(logprobs_of(found)[:8] - logprobs_of(expected)[:8]).mean() < 0.2
    assert in_slot(server, 1)["evictions"] > before["evictions"]


def test_files_of_servers_with_and_without_a_budget(
    smollm2: pathlib.Path, sidecar: pathlib.Path, tmp_path: pathlib.Path, long_text: str
) -> None:
    """Neither takes the other's: what one has evicted would be a hole in the other's text."""
    settings: dict = {"n_ctx": 2048, "n_threads": 1, "arguments": ["--slots", "--slot-save-path", str(tmp_path)]}
    for budget, name, other in ((None, "whole.bin", None), (BUDGET, "held.bin", "whole.bin"), (None, "", "held.bin")):
        with Server(smollm2, budget=budget, triattn_stats=None if budget is None else sidecar, **settings) as running:
            expected = complete(running, long_text[:4000])
            if name:
                ask(f"{running.url}/slots/0?action=save", {"filename": name})
            if other:
                assert ask(f"{running.url}/slots/0?action=restore", {"filename": other})["status"] == 400
                assert complete(running, long_text[:4000])["tokens"] == expected["tokens"]


@pytest.mark.parametrize(("type_k", "budget"), [("q8_0", None), ("q8_0", BUDGET), ("kv3", None), ("kv3", BUDGET)])
def test_keys_and_values_in_three_bits(smollm2: pathlib.Path, long_text: str, type_k: str, budget: int | None) -> None:
    flags = ["--slots", "-ctk", type_k, "-ctv=kv3", "--ctx-checkpoints", "0"]
    settings: dict = {"budget": budget, "n_ctx": 2048, "n_threads": 1}
    if budget is not None:
        settings["mode"] = "recent"
    with Server(smollm2, arguments=flags, **settings) as running:
        answer = complete(running, long_text[:4000])
    with Llama(smollm2, type_k=type_k, type_v="kv3", **settings) as llama:
        expected = llama(long_text[:4000], max_tokens=24, temperature=0.0)["choices"][0]["text"]
    assert answer["content"] == expected


@pytest.mark.parametrize("n_characters", [600, 6000])
def test_what_is_new_is_read_once_more(
    smollm2: pathlib.Path, sidecar: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str, n_characters: int
) -> None:
    """The same greedy text as `Llama` with `reread` writes, in a slot beside another one that is at work."""
    prompt = long_text[:n_characters]
    settings: dict = {"budget": BUDGET, "reread": True, "n_ctx": N_CTX, "n_threads": 1}
    flags = ["--slots", "--ctx-checkpoints", "0"]
    with Server(smollm2, triattn_stats=sidecar, parallel=2, **settings, arguments=flags) as running:
        assert ask(f"{running.url}/props")["triattention"]["reread"] is True
        complete(running, long_text[3000:5000], slot=1, n_predict=200)
        answer = complete(running, prompt, n_predict=300, ignore_eos=True)
        assert in_slot(running, 0)["evictions"] >= 1
    with Llama(smollm2, triattn_stats=smollm2_stats, **settings) as llama:
        result = llama(prompt, max_tokens=300, temperature=0.0, ignore_eos=True)
    assert result["choices"][0]["text"] == answer["content"]


def test_a_protected_prompt(
    smollm2: pathlib.Path, sidecar: pathlib.Path, smollm2_stats: TriAttentionStats, long_text: str
) -> None:
    """It stays whole, the answer is that of `Llama`, and a prompt that does not fit is refused."""
    prompt = long_text[:600]
    settings: dict = {"budget": BUDGET, "protect_prompt": True, "window": 64, "n_ctx": N_CTX, "n_threads": 1}
    with Server(smollm2, triattn_stats=sidecar, **settings, arguments=["--slots"]) as running:
        answer = complete(running, prompt, n_predict=400, ignore_eos=True)
        assert in_slot(running, 0)["evictions"] > 1
        refused = complete(running, long_text[:2000])
        assert refused["status"] == 400 and "a protected prompt of" in refused["error"]["message"]
        smaller = complete(running, prompt, triattention_budget=128)
        assert smaller["status"] == 400 and "do not fit the budget of 128" in smaller["error"]["message"]
        again = complete(running, prompt, n_predict=400, ignore_eos=True, cache_prompt=True)
        assert again["content"] == answer["content"] and again["timings"]["cache_n"] == 0
    with Llama(smollm2, triattn_stats=smollm2_stats, **settings) as llama:
        result = llama(prompt, max_tokens=400, temperature=0.0, ignore_eos=True)
        n = result["usage"]["prompt_tokens"]
        assert [*llama.kept_positions(0, 0)[:n]] == [*range(n)]
        assert result["choices"][0]["text"] == answer["content"]


def test_several_answers_to_one_prompt(server: Server, long_text: str) -> None:
    erase(server)
    answers = ask(f"{server.url}/completion", {"prompt": long_text[:5000], "n": 2, "temperature": 0, "n_predict": 150})
    assert len(answers) == 2 and answers[0]["content"] == answers[1]["content"]


def test_a_request_may_ask_for_less(server: Server, long_text: str) -> None:
    erase(server)
    complete(server, long_text[:6000], triattention_budget=192)
    slot = in_slot(server, 0)
    assert slot["budget"] == 192 and slot["resident_keys"] < 192 + 128 + 24
    complete(server, "Another text.")
    assert in_slot(server, 0)["budget"] == BUDGET


@pytest.mark.parametrize("budget", [-1, 0, 20, BUDGET + 1, 2.5, "all", [], True])
def test_bad_budgets_of_a_request(server: Server, budget: object) -> None:
    answer = complete(server, "Hello", triattention_budget=budget)
    assert answer["status"] == 400 and answer["error"]["type"] == "invalid_request_error"
    assert f"to {BUDGET}, the budget of this server" in answer["error"]["message"]


def test_bad_requests_disturb_nobody(server: Server, long_text: str) -> None:
    erase(server)
    expected = complete(server, long_text[:3000])["tokens"]
    erase(server)
    url = f"{server.url}/completion"
    assert ask(url, raw=b"{broken")["status"] == 400
    assert ask(url, raw=b'{"prompt": "\xff\xfe", "n_predict": 1}')["status"] == 400
    assert ask(url, {"prompt": long_text[:60000], "n_predict": 1, "id_slot": 1})["error"]["n_ctx"] == N_CTX
    assert ask(f"{server.url}/slots/0?action=restore", {"filename": "../../etc/passwd"})["status"] == 400
    assert ask(f"{server.url}/nothing")["status"] == 404
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:  # and vanishes
        client.sendall(b"POST /completion HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert complete(server, long_text[:3000])["tokens"] == expected


def test_it_ends_cleanly(smollm2: pathlib.Path, sidecar: pathlib.Path) -> None:
    with Server(smollm2, budget=BUDGET, triattn_stats=sidecar, n_ctx=1024, n_threads=1) as running:
        assert running.is_running and running.url.startswith("http://127.0.0.1:")
        os.kill(running.pid, signal.SIGINT)
        end = time.monotonic() + 60
        while running.is_running and time.monotonic() < end:
            time.sleep(0.05)
        assert not running.is_running
        assert running._process.returncode == 0
    running.close()  # a second time


def test_without_a_budget_it_is_llama_server(smollm2: pathlib.Path, long_text: str) -> None:
    with Server(smollm2, n_ctx=2048, n_threads=1) as running:
        assert "triattention" not in ask(f"{running.url}/props")
        answer = complete(running, long_text[:3000], triattention_budget=100)
        assert "started with --triattention-budget" in answer["error"]["message"]
        expected = complete(running, long_text[:3000])["content"]
    with Llama(smollm2, n_ctx=2048, n_threads=1) as llama:
        assert llama(long_text[:3000], max_tokens=24, temperature=0.0)["choices"][0]["text"] == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--triattention-budget", "10"], "budget"),
        (["--triattention-budget", "512", "--triattention-stats", "missing.triattention"], "missing.triattention"),
        (["--triattention-budget", "512", "--context-shift"], "--context-shift and a budget exclude each other"),
        (["--triattention-budget", "512", "--embedding"], "--embedding reads a text once"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_what_cannot_be_served(smollm2: pathlib.Path, flags: list[str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Server(smollm2, n_ctx=1024, n_threads=1, arguments=flags)


def test_a_second_reading_that_could_not_be_taken_back_is_refused(gemma3: pathlib.Path) -> None:
    """When the server starts: its layers with a sliding window cannot forget in several slots."""
    with pytest.raises(BackendError, match="sliding window or a recurrent state.*use reread=False or n_seq_max=1"):
        Server(gemma3, budget=BUDGET, parallel=2, reread=True, n_ctx=1024, n_threads=1)


def test_a_missing_model_and_a_port_in_use(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BackendError, match=r"missing\.gguf"):
        Server(tmp_path / "missing.gguf", budget=BUDGET)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BackendError, match="couldn't bind"):
            Server(smollm2, n_ctx=512, port=taken.getsockname()[1])
