"""A state machine for hypothesis that reads, evicts, goes back, saves and loads in any order, and knows what the cache
must hold after each step.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytriattn import TriAttnError
from pytriattn._native import core
from support.architecture_checks import snapshot
from support.tiny_context import TinyContext

__all__ = ["CacheMachine", "Case"]

BUDGET, INTERVAL, WINDOW, N_SINK = 48, 16, 12, 4
N_CTX = 1200

Rows = dict[tuple[int, int, int, int], bytes]
"""(layer, 0 for K or 1 for V, head, position) -> the row as it was when the position had been read."""


@dataclass(frozen=True)
class Case:
    """One way to use a tiny model."""

    arch: str = "llama"
    mode: str = "per_layer_head"
    types: tuple[str, str] = ("f16", "f16")
    n_seq_max: int = 1
    reread: bool = False

    def __str__(self) -> str:
        parts = [self.arch, self.mode, *(self.types if self.types != ("f16", "f16") else ())]
        return "-".join(parts + ["2 sequences"] * (self.n_seq_max > 1) + ["reread"] * self.reread)

    def make(self, path: pathlib.Path) -> core.Context:
        """Return a context over the tiny model at `path`."""
        return TinyContext(
            path,
            mode=self.mode,
            budget=BUDGET,
            interval=INTERVAL,
            window=WINDOW,
            reread=self.reread,
            type_k=self.types[0],
            type_v=self.types[1],
            n_ctx=N_CTX,
            n_threads=1,
            n_seq_max=self.n_seq_max,
        ).context


@dataclass
class Text:
    """What one sequence must hold."""

    n_tokens: int = 0
    n_protected: int = 0
    evicted_at: int = 0
    """Tokens that had been read when a key was last evicted; 0: never."""
    rows: Rows = field(default_factory=dict)

    def copy(self) -> Text:
        """Return a copy that later changes leave alone."""
        return Text(self.n_tokens, self.n_protected, self.evicted_at, dict(self.rows))


class CacheMachine(RuleBasedStateMachine):
    """Uses one context; `case` and `path` are set by the test that runs it."""

    case: Case
    path: pathlib.Path
    states: Bundle[tuple[core.SavedSequence, Text]] = Bundle("states")

    def __init__(self) -> None:
        super().__init__()
        self.context = self.case.make(self.path)
        self.context.record_evictions(True)
        self.texts = [Text() for _ in range(self.case.n_seq_max)]

    # -- what happens

    @initialize(n=st.integers(1, 8))
    def begin(self, n: int) -> None:
        """Read a prompt, of which a part may be evicted at once."""
        for seq in range(self.case.n_seq_max):
            for _ in range(n):
                self._read(seq, WINDOW)

    @rule(seq=st.integers(0, 1), n=st.integers(1, WINDOW))
    def read(self, seq: int, n: int) -> None:
        """Append some tokens at once: no more than are protected, so that their rows can be looked at."""
        self._read(seq % self.case.n_seq_max, n)

    @rule(n=st.sampled_from((1, 20, INTERVAL, 2 * INTERVAL + 1)))
    def step(self, n: int) -> None:
        """Decode: one token in each sequence, several times."""
        for _ in range(n):
            if any(text.n_tokens == N_CTX for text in self.texts):
                return
            seqs = list(range(self.case.n_seq_max))
            self.context.step(seqs, [self._token(text.n_tokens) for text in self.texts])
            for seq in seqs:
                self._took(seq, 1)

    @rule(seq=st.integers(0, 1))
    def evict(self, seq: int) -> None:
        """Prune to the budget before it is due."""
        seq %= self.case.n_seq_max
        self.context.evict(seq, self.texts[seq].n_protected)
        self._note_evictions()

    @rule(seq=st.integers(0, 1), back=st.integers(0, 2 * WINDOW))
    def go_back(self, seq: int, back: int) -> None:
        """Rewind. What was evicted later cannot come back; anything else has to."""
        seq %= self.case.n_seq_max
        text = self.texts[seq]
        n = max(0, text.n_tokens - back)
        left = self.context.truncate(seq, n, keep_evicted=True)
        if left == 0:
            is_plain = self.case.arch in ("llama", "qwen3", "deepseek2-full")
            assert n == 0 or text.evicted_at > n or not is_plain, "it could have gone back"
            self.texts[seq] = Text()
            return
        assert left == n
        assert text.evicted_at <= n, "it went back behind an eviction"
        text.rows = {key: row for key, row in text.rows.items() if key[3] < n}
        if n < text.n_tokens:
            text.n_tokens, text.n_protected = n, 0

    @rule(seq=st.integers(0, 1), n=st.integers(1, WINDOW), is_protected=st.booleans())
    def start_anew(self, seq: int, n: int, is_protected: bool) -> None:
        """Forget a sequence and begin another text in its place, which may be protected."""
        seq %= self.case.n_seq_max
        self.context.clear(seq)
        self.texts[seq] = Text(n_protected=n if is_protected else 0)
        self._read(seq, n)

    @rule(n=st.integers(0, 12), seq=st.integers(0, 1))
    def ask(self, n: int, seq: int) -> None:
        """Set a question, or take it back; nothing happens in modes that take none."""
        seq %= self.case.n_seq_max
        position = self.texts[seq].n_tokens
        self.context.set_question(seq, np.arange(n, dtype=np.int32) + 3, position)

    @precondition(lambda self: self.case.n_seq_max == 1)
    @rule(target=states)
    def save(self) -> tuple[core.SavedSequence, Text]:
        """Remember all of the sequence."""
        return self.context.save(), self.texts[0].copy()

    @rule(state=states)
    def load(self, state: tuple[core.SavedSequence, Text]) -> None:
        """Go back to what was remembered."""
        saved, text = state
        self.context.load(saved)
        self.texts[0] = text.copy()

    @rule(wrong=st.sampled_from(["token", "sequence", "length"]))
    def refuse(self, wrong: str) -> None:
        """Ask for what is impossible: it has to change nothing."""
        with pytest.raises(TriAttnError):
            if wrong == "token":
                self.context.read(0, np.array([3, 1 << 20], np.int32), self.texts[0].n_protected)
            elif wrong == "sequence":
                self.context.step([self.case.n_seq_max], [3])
            else:
                self.context.read(0, np.full(N_CTX + 1, 3, np.int32), self.texts[0].n_protected)

    # -- what must be true

    @invariant()
    def the_cache_is_as_large_as_it_was(self) -> None:
        """Hold no more cells than were allocated, and no more than budget and interval and what one call reads."""
        counters = self.context.counters()
        assert counters.cells_used <= counters.cells_allocated
        assert counters.cells_used <= self.case.n_seq_max * (BUDGET + INTERVAL + WINDOW)

    @invariant()
    def heads_keep_what_they_must(self) -> None:
        """Keep past positions, each once: sinks, window and protected prompt among them."""
        for seq, text in enumerate(self.texts):
            n = text.n_tokens
            assert self.context.n_tokens(seq) == n
            cells = core.testing.cells(self.context, seq)
            first = set(range(min(max(N_SINK, text.n_protected), n)))
            # a rewind moves the window back, over what may have been evicted before
            window = set(range(max(0, text.evicted_at - WINDOW), n))
            for layer in self.context.layers:
                for head in range(layer.n_head_kv):
                    kept = self.context.kept_positions(seq, layer.layer, head).tolist()
                    assert len(kept) == len(set(kept)) == len(cells)
                    assert set(kept) <= set(range(n))
                    assert first | window <= set(kept)

    @invariant()
    def rows_are_those_of_their_positions(self) -> None:
        """Hold in each cell, byte for byte, the row that was computed for the position that its head names."""
        for seq, text in enumerate(self.texts):
            slots = [cell.slot for cell in core.testing.cells(self.context, seq)]
            if not slots:
                continue
            view = self.context.eviction_view(seq)
            origins = {of.layer: layer.origins() for of, layer in zip(self.context.layers, view.layers, strict=True)}
            for (layer, kind, head), table in snapshot(self.context, self.case.types, seq).items():
                for slot, position in zip(slots, origins[layer][head].tolist(), strict=True):
                    assert table[slot].tobytes() == text.rows[layer, kind, head, position]

    # -- how it is followed

    def _token(self, position: int) -> int:
        return 3 + (position * 7919 + 13) % 240

    def _read(self, seq: int, n: int) -> None:
        text = self.texts[seq]
        n = min(n, N_CTX - text.n_tokens)
        if n == 0:
            return
        tokens = np.array([self._token(text.n_tokens + i) for i in range(n)], dtype=np.int32)
        self.context.read(seq, tokens, text.n_protected)
        self._took(seq, n)

    def _took(self, seq: int, n: int) -> None:
        """Note that `n` tokens have been read, with their rows: the window has kept them where they were written."""
        text = self.texts[seq]
        slot_of = {cell.position: cell.slot for cell in core.testing.cells(self.context, seq)}
        for (layer, kind, head), table in snapshot(self.context, self.case.types, seq).items():
            for position in range(text.n_tokens, text.n_tokens + n):
                text.rows[layer, kind, head, position] = table[slot_of[position]].tobytes()
        text.n_tokens += n
        self._note_evictions()

    def _note_evictions(self) -> None:
        for record in self.context.take_evictions():
            self.texts[record.seq].evicted_at = record.position

    def teardown(self) -> None:
        """Close the context: here an error of the machine's own must not leave one open."""
        self.context.close()


def run(case: Case, path: pathlib.Path, settings: Any) -> None:
    """Let hypothesis look for an order of calls that breaks a promise."""
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (CacheMachine,), {"case": case, "path": path})
    run_state_machine_as_test(machine, settings=settings)
