"""Many texts decoded at once, each in a sequence with a budget of its own."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.generation.completion import Completion
from pytriattn.generation.question import Question, find_question
from pytriattn.generation.sampling import SamplingParams
from pytriattn.generation.text_stream import TextStream, check_stops
from pytriattn.generation.token_stream import token_limit
from pytriattn.session.session import Session

__all__ = ["complete_batch"]


@dataclass
class _Text:
    """A prompt and its completion so far."""

    index: int
    prompt: npt.NDArray[np.int32]
    question: Question | None
    sampler: core.Sampler
    stream: TextStream
    pieces: list[str] = field(default_factory=list)
    n_generated: int = 0
    last: int = -1
    finish_reason: str | None = None

    def take(self, llm: Session, token: int, limit: int | None, ignore_eos: bool) -> None:
        """Take a token that was drawn; sets `finish_reason` when the text ends."""
        if not ignore_eos and llm.is_end(token):
            self._finish("stop")
            return
        self.last = token
        self.n_generated += 1
        piece = self.stream.push(token)
        if piece is not None:
            self.pieces.append(piece.text)
        if self.stream.has_stopped:
            self.finish_reason = "stop"
        elif self.n_generated == limit or len(self.prompt) + self.n_generated > llm.n_ctx():
            self._finish("length")

    def _finish(self, reason: str) -> None:
        self.pieces.append(self.stream.finish(reason).text)
        self.finish_reason = reason


def complete_batch(
    llm: Session,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int | None,
    params: SamplingParams,
    stop: str | Sequence[str] | None,
    question: int | str | None,
) -> list[Completion]:
    """Complete prompts; see `Llama.generate_batch`."""
    stops, limit = check_stops(stop), token_limit(max_tokens)
    waiting = deque(_prepare(llm, i, prompt, params, stops, question) for i, prompt in enumerate(prompts))
    texts = list(waiting)
    if limit == 0:
        for text in texts:
            text.finish_reason = "length"
        return [_completion(llm, text) for text in texts]
    llm.reset()
    running: dict[int, _Text] = {}
    free = list(range(llm.n_sequences))
    try:
        while waiting or running:
            while waiting and free:
                seq, text = free.pop(), waiting.popleft()
                first = llm.start_sequence(seq, text.prompt, text.sampler, text.question)
                text.take(llm, first, limit, params.ignore_eos)
                running[seq] = text
                _release(running, free)
            if not running:
                continue
            seqs = sorted(running)
            drawn = llm.draw_each(seqs, [running[seq].last for seq in seqs], [running[seq].sampler for seq in seqs])
            for seq, token in zip(seqs, drawn, strict=True):
                running[seq].take(llm, token, limit, params.ignore_eos)
            _release(running, free)
    finally:
        llm.reset()
    return [_completion(llm, text) for text in texts]


def _prepare(
    llm: Session,
    index: int,
    prompt: str | Sequence[int],
    params: SamplingParams,
    stops: list[str],
    question: int | str | None,
) -> _Text:
    tokens = llm.check_prompt(llm.tokenize_prompt(prompt) if isinstance(prompt, str) else prompt)
    settings = params.to_native(llm.n_ctx())
    settings.seed = params.native_seed(index)
    asked = find_question(llm, tokens, question)
    return _Text(index, tokens, asked, params.prepare(llm, settings, tokens), TextStream(llm, stops))


def _release(running: dict[int, _Text], free: list[int]) -> None:
    for seq in [seq for seq, text in running.items() if text.finish_reason is not None]:
        del running[seq]
        free.append(seq)


def _completion(llm: Session, text: _Text) -> Completion:
    n_prompt, n = len(text.prompt), text.n_generated
    return {
        "id": f"cmpl-{uuid.uuid4()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": llm.identity.name,
        "choices": [{"text": "".join(text.pieces), "index": 0, "logprobs": None, "finish_reason": text.finish_reason}],
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n},
    }
