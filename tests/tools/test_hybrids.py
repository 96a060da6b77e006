"""The small hybrids: their text, their model files, and llama.cpp's logits against PyTorch's."""

from __future__ import annotations

import dataclasses
import pathlib
import zlib

import gguf
import numpy as np
import pytest

from hybrids.arms import ARMS, Arm
from hybrids.compare import differences
from hybrids.documents import AT_END, LATER, N_LATER, N_PROMPT, N_TOKENS, write_document
from hybrids.experiment import calibration_text
from hybrids.layout import ExportError, check_tensors, read_shape, read_tensors, tensor_shapes, write_model
from hybrids.shape import SHAPES, Shape
from hybrids.text import Mix, draw_facts, join, training_text
from pytriattn import Llama, TriAttentionStats, calibrate
from pytriattn.lab.reading import read_document
from support.paths import ROOT

SMALL = Shape(attention_interval=4, n_embd=64, n_ff=96, head_dim=32, n_rot=16)
HYBRID = ROOT / "tests" / "data" / "hybrid.gguf"
LOGITS = ROOT / "tests" / "data" / "hybrids_logits.npz"


def random_tensors(shape: Shape) -> dict[str, np.ndarray]:
    """Return weights that follow from the names of the tensors."""
    found = {}
    for name, size in tensor_shapes(shape).items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("ssm_a"):
            values = -rng.uniform(0.2, 1.5, size)
        elif name.endswith("ssm_dt.bias"):
            values = rng.uniform(-4.0, -2.0, size)
        elif "norm" in name:
            values = rng.normal(1.0, 0.15, size)
        else:
            values = rng.normal(0.0, 1.0 if name.startswith("token_embd") else size[-1] ** -0.5, size)
        found[name] = values.astype(np.float32)
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("hybrids") / "small.gguf"
    write_model(path, SMALL, random_tensors(SMALL))
    return path


# --- text ---


def test_facts_have_keys_that_differ() -> None:
    facts = draw_facts(np.random.default_rng(0), 200, near=0.7)
    assert len({fact.key for fact in facts}) == 200
    assert len({fact.key[:1] for fact in facts}) <= 26


def test_a_training_text_marks_the_answers() -> None:
    tokens, known = training_text(np.random.default_rng(3), Mix(512, 12, 0))
    text = tokens.tobytes()
    assert len(text) == 512 and known.sum() == 24
    for start in np.flatnonzero(known)[::2]:
        question, answer = text[start - 4 : start], text[start : start + 2]
        assert question[:1] == b"?"
        assert text.index(question[1:] + answer) < start - 4  # stated before it is asked


def test_a_copied_string_can_be_known_after_two_letters() -> None:
    tokens, known = training_text(np.random.default_rng(4), Mix(512, 0, 1))
    text = tokens.tobytes()
    first, second = text.index(b"["), text.rindex(b"[")
    length = text.index(b"]") - first
    assert text[first : first + length] == text[second : second + length]
    assert np.array_equal(np.flatnonzero(known), np.arange(second + 3, second + length + 1))


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="the pieces have 10 bytes, the text only 8"):
        join(np.random.default_rng(0), [(0.5, b"0123456789")], 8)


@pytest.mark.parametrize("index", range(4))
def test_needles_lie_at_their_depths(index: int) -> None:
    document = write_document(index)
    text = bytes(document.tokens.astype(np.uint8))
    assert len(text) == N_TOKENS + N_LATER
    assert [q.task for q in document.questions] == [AT_END] * 11 + [LATER] * 11
    for question in document.questions:
        statement = bytes(question.prompt.astype(np.uint8))[1:] + bytes(question.answer.astype(np.uint8))
        assert text.count(statement[:3]) == 1 and question.age is not None
        assert text.index(statement) == question.at - question.age
        if question.task == AT_END:
            depth = (N_TOKENS - question.age) / N_TOKENS
            assert abs(depth - int(question.group) / 100) < 0.12
    first = text.index(bytes(document.questions[0].prompt.astype(np.uint8))[1:])
    assert first < N_PROMPT - 8  # it stands in what can be pinned


# --- model files ---


def test_llama_cpp_computes_what_pytorch_computes(small: pathlib.Path) -> None:
    # python -m hybrids.logits of this very model; see docs/hybrids.md
    assert max(differences(small, LOGITS)) < 1e-4


@pytest.mark.parametrize("name", SHAPES)
def test_both_models_can_be_read_and_evicted_from(name: str, tmp_path: pathlib.Path) -> None:
    shape = SHAPES[name]
    write_model(tmp_path / "m.gguf", shape, random_tensors(shape), "Q8_0")
    with Llama(tmp_path / "m.gguf", n_ctx=512, budget=96, window=32, interval=32, mode="recent") as llm:
        assert llm.attention_layers == [i for i in range(4) if shape.has_attention(i)]
        assert llm.tokenize("Kq=37;") == list(b"Kq=37;")
        llm.eval(list(b"the cat sees a dog. " * 12))
        assert llm.kv_stats()["evictions"] > 0


def test_a_file_gives_back_shape_and_tensors(tmp_path: pathlib.Path) -> None:
    for name, shape in SHAPES.items():
        tensors = random_tensors(shape)
        write_model(tmp_path / f"{name}.gguf", shape, tensors)
        reader = gguf.GGUFReader(tmp_path / f"{name}.gguf")
        assert read_shape(reader) == shape
        found = read_tensors(reader, shape)
        assert found.keys() == tensors.keys()
        assert all(np.array_equal(found[key], tensors[key]) for key in tensors)


def test_what_does_not_fit_is_named(tmp_path: pathlib.Path) -> None:
    tensors = random_tensors(SMALL)
    missing = {name: values for name, values in tensors.items() if name != "blk.2.ssm_out.weight"}
    with pytest.raises(ExportError, match=r"tensor blk\.2\.ssm_out\.weight is missing"):
        check_tensors(SMALL, missing)
    with pytest.raises(ExportError, match=r"tensor blk\.3\.attn_k\.weight has the shape \[64, 32\], it must be"):
        check_tensors(SMALL, tensors | {"blk.3.attn_k.weight": tensors["blk.3.attn_k.weight"][:, :32]})
    with pytest.raises(ExportError, match=r"tensor blk\.0\.attn_q\.weight is not known"):
        check_tensors(SMALL, tensors | {"blk.0.attn_q.weight": tensors["blk.3.attn_q.weight"]})
    with pytest.raises(ExportError, match=r"tensor output_norm\.weight has values that are not finite"):
        check_tensors(SMALL, tensors | {"output_norm.weight": np.full(64, np.nan, dtype=np.float32)})
    larger = dataclasses.replace(SMALL, n_vocab=300)
    with pytest.raises(ExportError, match=r"tokenizer\.ggml\.tokens has 256 entries.*token_embd\.weight has 300 rows"):
        write_model(tmp_path / "m.gguf", larger, random_tensors(larger))
    assert not (tmp_path / "m.gguf").exists()


# --- with PyTorch ---


def test_a_chunked_delta_rule_reads_token_by_token() -> None:
    torch = pytest.importorskip("torch")
    from hybrids.network import delta_rule

    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 75, 16)
    key = key / key.norm(dim=-1, keepdim=True)
    decay, beta = -torch.rand(2, 3, 75), torch.rand(2, 3, 75)
    state, wanted = torch.zeros(2, 3, 16, 16), []
    for t in range(75):
        state = state * decay[:, :, t, None, None].exp()
        new = beta[:, :, t, None] * (value[:, :, t] - (state * key[:, :, t, :, None]).sum(2))
        state = state + key[:, :, t, :, None] * new[:, :, None]
        wanted.append((state * query[:, :, t, :, None]).sum(2))
    assert (delta_rule(query, key, value, decay, beta) - torch.stack(wanted, 2)).abs().max() < 1e-4


def test_stored_logits_are_pytorchs(small: pathlib.Path) -> None:
    pytest.importorskip("torch")
    from hybrids.logits import compute

    stored = np.load(LOGITS)
    tokens, logits = compute(small, len(stored["tokens"]))
    assert np.array_equal(tokens, stored["tokens"])
    assert np.abs(logits - stored["logits"]).max() < 1e-4


def test_a_checkpoint_that_cannot_be_exported_is_refused(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    from hybrids.export import read_checkpoint

    path = tmp_path / "checkpoint.pt"
    good = {"architecture": "qwen35", "shape": SMALL.to_dict(), "weights": {}, "step": 3}
    torch.save(good, path)
    assert read_checkpoint(path).shape == SMALL
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ExportError, match="is no checkpoint, or it is cut off"):
        read_checkpoint(path)
    for changed, message in (
        ({"architecture": "llama"}, "architecture is 'llama'"),
        ({"shape": {**SMALL.to_dict(), "n_expert": 4}}, r"shape\.n_expert is not known"),
        ({"shape": {k: v for k, v in SMALL.to_dict().items() if k != "n_ff"}}, r"shape\.n_ff is missing"),
    ):
        torch.save({**good, **changed}, path)
        with pytest.raises(ExportError, match=message):
            read_checkpoint(path)
    torch.save({key: value for key, value in good.items() if key != "weights"}, path)
    with pytest.raises(ExportError, match="has no key 'weights'"):
        read_checkpoint(path)


# --- the trained hybrid


def answered(arm: Arm, stats: TriAttentionStats, share: float) -> float:
    """Return the share of needles that the trained hybrid answers in two texts, right behind them and later."""
    options: dict = {"n_ctx": 2048, "n_threads": 1}
    if arm.rule.mode is not None:
        options |= {"budget": round(N_TOKENS * share), "mode": arm.rule.mode, "interval": 24, "triattn_stats": stats}
    with Llama(HYBRID, **options) as llm:
        found = [answer.is_exact for index in range(2) for answer in read_document(llm, write_document(index)).answers]
    return float(np.mean(found))


@pytest.mark.slow
def test_the_default_keeps_the_needles_of_the_trained_hybrid() -> None:
    with Llama(HYBRID, n_ctx=2048, n_threads=1) as llm:
        stats = calibrate(llm, calibration_text(), n_tokens=1024, n_threads=1)
    full = answered(ARMS["full"], stats, 1.0)
    assert full >= 0.95
    assert answered(ARMS["fitted"], stats, 0.75) >= 0.95 * full
    assert answered(ARMS["fitted"], stats, 0.25) >= 0.85 * full
    # the needles are in the cache and nowhere else: the recurrent state does not remember them
    assert answered(ARMS["recent"], stats, 0.25) < 0.4
    assert answered(ARMS["per_layer_head"], stats, 0.25) < 0.4
