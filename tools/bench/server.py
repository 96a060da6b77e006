"""Measure pytriattn-server: many slots with and without a budget, a chat that grows, a mixed load.

    python tools/bench/server.py --parts slots turns mixed

slots: eight texts of 4,000 tokens at once, then 64 tokens generated for each; with a budget of 512, and without.
turns: the time to the first token of each turn of a chat up to 7,700 tokens (SmolLM2 was trained for 8,192), budget
1,024.
mixed: requests of mixed lengths, with cancellations, disconnects and bad ones among them; memory at the end. With
`--minutes N` they keep coming for N minutes in place of `--requests`, and what came of them is counted along the way.
Copies of a slot's cache (`--checkpoints`, 4 by default) make the memory swing: with 0 it shows what is never freed.
throughput: 200 tokens after a prompt of 320, without a budget, in turns with `--llama-server PROGRAM`, one built from
the same tree.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import json
import pydoc_data.topics
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pytriattn.server import Server

TOOLS = Path(__file__).resolve().parents[1]
TEXT = "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def ask(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the answer to a request, or the status of an error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=3600) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code


def tokens_of(server: Server, n: int, begin: int) -> list[int]:
    """Return `n` tokens of the text from a character on."""
    found: list[int] = ask(server, "/tokenize", {"content": TEXT[begin : begin + 8 * n]})["tokens"][:n]
    return found


def measure_slots(model: Path, threads: int, n_tokens: int, n_slots: int, rounds: int) -> None:
    """Print the speed of many slots with a budget and without."""
    speeds: dict[int | None, list[float]] = {512: [], None: []}
    for _ in range(rounds):
        for budget, found in speeds.items():
            n_ctx = n_tokens + 512 if budget else (n_tokens + 512) * n_slots
            flags = ["--no-kv-unified", "--slots", "--cache-ram", "0"]
            with Server(
                model, budget=budget, parallel=n_slots, n_ctx=n_ctx, n_threads=threads, arguments=flags
            ) as server:
                prompts = [tokens_of(server, n_tokens, 9000 * slot) for slot in range(n_slots)]

                def run(slot: int, n: int, server: Server = server, prompts: list[list[int]] = prompts) -> Any:
                    body = {"prompt": prompts[slot], "n_predict": n, "id_slot": slot, "ignore_eos": True}
                    return ask(server, "/completion", {**body, "temperature": 0, "return_tokens": True})

                with concurrent.futures.ThreadPoolExecutor(n_slots) as pool:
                    start = time.perf_counter()
                    first = list(pool.map(lambda slot: run(slot, 1), range(n_slots)))
                    reading = time.perf_counter() - start
                    for slot, answer in enumerate(first):
                        prompts[slot] += answer["tokens"]
                    start = time.perf_counter()
                    list(pool.map(lambda slot: run(slot, 64), range(n_slots)))
                    generating = time.perf_counter() - start
                found.append(64 * n_slots / generating)
                print(
                    f"budget {budget}: read {n_slots} x {n_tokens} tokens in {reading:.1f} s, generated "
                    f"{found[-1]:.1f} tokens/s",
                    flush=True,
                )
    ratio = statistics.median(speeds[512]) / statistics.median(speeds[None])
    print(f"generating with a budget : without = {ratio:.2f}")


def measure_turns(model: Path, threads: int, n_turns: int) -> None:
    """Print the time to the first token of each turn of a growing chat."""
    with Server(model, budget=1024, n_ctx=16384, n_threads=threads) as server:
        messages = [{"role": "system", "content": "Answer in one sentence."}]
        times: list[float] = []
        for turn in range(n_turns):
            question = ask(server, "/detokenize", {"tokens": tokens_of(server, 320, 1420 * turn)})["content"]
            messages.append({"role": "user", "content": question})
            body = {"messages": messages, "max_tokens": 60, "temperature": 0}
            answer = ask(server, "/v1/chat/completions", body)
            times.append(answer["timings"]["prompt_ms"] / 1000)
            usage = answer["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            print(f"turn {turn + 1}: {usage['prompt_tokens']} tokens, {cached} cached, {times[-1]:.2f} s", flush=True)
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        print(f"first token, turn {n_turns} : turn 5 = {times[-1] / times[4]:.2f}")


def measure_throughput(model: Path, threads: int, program: Path, rounds: int) -> None:
    """Print how fast a stream is without a budget, llama-server's speed = 1."""
    body = {"prompt": "Once upon a time there was a lighthouse " * 40, "n_predict": 200, "temperature": 0}
    body |= {"ignore_eos": True, "cache_prompt": False, "stream": True}
    data = json.dumps(body).encode()

    def seconds(url: str) -> float:
        start = time.perf_counter()
        request = urllib.request.Request(url + "/completion", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=3600) as answer:
            answer.read()
        return time.perf_counter() - start

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program), "-m", str(model), "-c", "4096", "--port", str(port), "-t", str(threads), "--parallel", "1"]
    with (
        Server(model, n_ctx=4096, n_threads=threads) as ours,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as theirs,
    ):
        try:
            urls = [ours.url, f"http://127.0.0.1:{port}"]
            while True:
                with contextlib.suppress(urllib.error.URLError):
                    for url in urls:
                        seconds(url)
                    break
                time.sleep(0.5)
            ratios = []
            for turn in range(rounds):
                times = {url: seconds(url) for url in (urls if turn % 2 else urls[::-1])}
                ratios.append(times[urls[1]] / times[urls[0]])
            print(f"throughput : llama-server's = {statistics.median(ratios):.3f}, from {sorted(ratios)}")
        finally:
            theirs.kill()


def resident_bytes(pid: int) -> int:
    """Return the memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def one_request(server: Server, number: int) -> str:
    """Send a request of some kind and return what came of it."""
    chance = random.Random(number)
    begin = chance.randrange(len(TEXT) - 20000)
    body: dict[str, Any] = {"prompt": TEXT[begin : begin + chance.choice([50, 500, 3000, 8000])], "n_predict": 16}
    kind = chance.choice(["whole", "whole", "whole", "leave", "bad", "long"])
    if kind == "bad":
        status = ask(server, "/completion", {**body, "triattention_budget": -5})
        return "refused" if status == 400 else f"bad request: {status}"
    if kind == "long":
        status = ask(server, "/completion", {**body, "prompt": TEXT[:60000]})
        return "refused" if status == 400 else f"long prompt: {status}"
    if kind == "leave":  # without waiting for the answer
        host, _, port = server.url.removeprefix("http://").partition(":")
        data = json.dumps({**body, "stream": True}).encode()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /completion HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            client.sendall(f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
            client.settimeout(chance.random())
            with contextlib.suppress(TimeoutError):
                client.recv(100)
        return "left"
    answer = ask(server, "/completion", {**body, "triattention_budget": chance.choice([None, 256])})
    return "answered" if isinstance(answer, dict) and answer["tokens_predicted"] > 0 else f"failed: {answer}"


def most_keys(server: Server) -> int:
    """Return how many keys the fullest slot has."""
    return max(int(slot["triattention"]["resident_keys"]) for slot in ask(server, "/slots"))


def measure_mixed(model: Path, threads: int, n_requests: int) -> None:
    """Print what came of many requests, and the memory they took."""
    flags = ["--slots", "--cache-ram", "0"]
    with Server(model, budget=512, parallel=4, n_ctx=8192, n_threads=threads, arguments=flags) as server:
        found: dict[str, int] = {}
        memory: list[int] = []
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for number, result in enumerate(pool.map(lambda n: one_request(server, n), range(n_requests))):
                found[result] = found.get(result, 0) + 1
                if number % (n_requests // 10) == 0:
                    memory.append(resident_bytes(server.pid) // 2**20)
        most = most_keys(server)
        print(f"{n_requests} requests: {found}; resident MiB along the way: {memory}; most keys in a slot: {most}")


def measure_minutes(model: Path, threads: int, minutes: float, checkpoints: int | None) -> None:
    """Print what came of requests that keep coming, and the memory along the way, in parts of about five minutes."""
    n_parts = max(3, round(minutes / 5))
    found: collections.Counter[str] = collections.Counter()
    numbers = itertools.count()
    lock = threading.Lock()
    memory: list[float] = []
    keys = 0
    flags = ["--slots", "--cache-ram", "0"]
    if checkpoints is not None:
        flags += ["--ctx-checkpoints", str(checkpoints)]
    with Server(model, budget=512, parallel=4, n_ctx=8192, n_threads=threads, arguments=flags) as server:
        print(f"resident at the start: {resident_bytes(server.pid) / 2**20:.1f} MiB", flush=True)
        start = time.monotonic()

        def keep_asking() -> None:
            while time.monotonic() - start < 60 * minutes:
                with lock:
                    number = next(numbers)
                try:
                    result = one_request(server, number)
                except Exception as error:
                    result = f"request {number}: {type(error).__name__}: {error}"
                    time.sleep(1)
                with lock:
                    found[result] += 1

        clients = [threading.Thread(target=keep_asking, daemon=True) for _ in range(8)]
        for client in clients:
            client.start()
        for part in range(1, n_parts + 1):
            samples: list[int] = []
            while not samples or time.monotonic() - start < 60 * minutes * part / n_parts:
                time.sleep(min(2, 6 * minutes / n_parts))
                samples.append(resident_bytes(server.pid))
            keys = max(keys, most_keys(server))
            memory.append(statistics.median(samples) / 2**20)
            with lock:
                counts = dict(sorted(found.items()))
            print(
                f"{(time.monotonic() - start) / 60:.1f} min: {sum(counts.values())} requests {counts}; resident "
                f"{memory[-1]:.1f} MiB ({min(samples) / 2**20:.1f} to {max(samples) / 2**20:.1f}), {keys} keys at most",
                flush=True,
            )
        for client in clients:
            client.join()
        keys = max(keys, most_keys(server))
    change = memory[-1] / memory[1] - 1
    others = {result: n for result, n in found.items() if result not in ("answered", "refused", "left")}
    print(
        f"{minutes:g} minutes, {found.total()} requests: {dict(sorted(found.items()))}; {keys} keys at most in a slot"
    )
    print(f"memory, last part : second part = {change:+.2%}: {'within' if abs(change) <= 0.02 else 'NOT within'} 2 %")
    print(f"neither answered, refused nor left: {others or 'none'}")


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--parts", nargs="+", default=["slots", "turns", "mixed"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--llama-server", type=Path, help="for the part throughput")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=0, help="for the part mixed: how long, in place of --requests")
    parser.add_argument("--checkpoints", type=int, help="with --minutes: the server's --ctx-checkpoints")
    arguments = parser.parse_args()
    model = arguments.model
    if model is None:
        command = [sys.executable, str(TOOLS / "fetch_models.py"), "smollm2"]
        model = Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    if "slots" in arguments.parts:
        measure_slots(model, arguments.threads, arguments.tokens, arguments.slots, arguments.rounds)
    if "turns" in arguments.parts:
        measure_turns(model, arguments.threads, arguments.turns)
    if "mixed" in arguments.parts:
        if arguments.minutes > 0:
            measure_minutes(model, arguments.threads, arguments.minutes, arguments.checkpoints)
        else:
            measure_mixed(model, arguments.threads, arguments.requests)
    if "throughput" in arguments.parts:
        measure_throughput(model, arguments.threads, arguments.llama_server, 2 * arguments.rounds + 7)
    return 0


if __name__ == "__main__":
    sys.exit(main())
