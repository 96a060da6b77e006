"""Writes the inputs that fuzzing begins with to ``tests/corpus``. In `tools`: ``python -m fuzz.seeds``.

They are small, and made by the helpers of the tests; findings that have been mended lie beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": -5, "maximum": 70}}, "required": ["a"]},
    {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1, "maxItems": 3, "$defs": {"n": {"type": "number"}}},
    {"anyOf": [{"type": "string", "pattern": "^[a-c]{2,4}x?$"}, {"enum": [1, "b", None]}, {"const": True}]},
    {"allOf": [{"required": ["x"]}, {"properties": {"x": {"type": "string", "maxLength": 3}}}], "type": "object"},
    {"type": "string", "format": "date-time"},
    {"prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False, "type": "array"},
]
GRAMMARS = [
    'root ::= "a" [b-d]{1,3} (x | "é")*\nx ::= [^"\\\\] | "\\u00e9" root?\n',
    'root ::= item+\nitem ::= "- " [^\\n]+ "\\n"\n',
]
TEMPLATES = [
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}",
    "{%- macro f(x, n=2) -%}{{ x }}{% if n %}{{ f(x, n - 1) }}{% endif %}{%- endmacro -%}{{ f('a') }}",
    "{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
    "{{ messages | tojson }}{% if tools is defined %}{{ tools[0]['name'] }}{% endif %}{{ 'a' ~ 1 }}{# c #}",
]
CONVERSATIONS = [
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ],
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMAS[0]}}]


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield targets and inputs."""
    from fuzz.targets import _folder, _tiny_model
    from pytriattn._native import backends, core
    from pytriattn.conversion.formats.restricted_pickle import dump
    from pytriattn.gguf.identity import model_identity
    from pytriattn.stats.layer_stats import LayerStats
    from pytriattn.stats.model_stats import TriAttentionStats
    from support.foreign_files import fork_bytes, pt_bytes, random_heads, tria_bytes
    from support.gguf_bytes import FACTORS, gguf_bytes, model_keys
    from support.tiny_context import calibrated

    backends.require()
    native = calibrated(core.Model(str(_tiny_model())), fit=True)
    layers = tuple(LayerStats.from_native(layer) for layer in native.layers)
    identity = model_identity(_tiny_model())
    path = _folder() / "seed.triattention"
    TriAttentionStats(layers, identity, native.n_tokens, "0" * 64, 0.5).save(path)
    yield "sidecar", path.read_bytes()
    heads = random_heads([(0, 0), (0, 1), (1, 0)], 4)
    yield "foreign", fork_bytes(heads)
    yield "foreign", tria_bytes(heads)
    yield "foreign", tria_bytes(heads, 2)
    yield "foreign", pt_bytes(heads)
    yield "pickle", dump({"a": [1, "b", 2.5], "c": {}})[0]
    yield "gguf", gguf_bytes("llama", model_keys(), FACTORS, bare_keys={"tokenizer.ggml.tokens": ["a", "b"]})
    yield "gguf", gguf_bytes("gemma3", model_keys(attention__sliding_window=64))
    yield "gguf", gguf_bytes("llama", model_keys(), FACTORS, version=2)
    yield "state", bytes([1, 0, 0, 9, 0, 0, 0, 2, 1, 0, 4, 0, 0, 0])
    yield "state", b'H{"made_with": {}, "sizes": [0, 0, 0], "n_past": 0, "n_protected": 0}'
    yield "calls", bytes([0, 0, 90, 4, 0, 1, 20, 2, 5, 5, 0, 7, 30, 11, 0, 12, 0])
    yield "calls", bytes([4, 8, 30, 0, 100, 9, 5, 3, 0, 6, 60, 10, 20, 11, 0])
    for schema in SCHEMAS:
        yield "schema", json.dumps(schema).encode()
    for grammar in GRAMMARS:
        yield "grammar", grammar.encode()
    for template in TEMPLATES:
        yield "template", template.encode()
    for conversation in CONVERSATIONS:
        yield "messages", json.dumps(conversation).encode()
        yield "messages", (json.dumps(conversation) + "\0" + json.dumps(TOOLS)).encode()


def main() -> None:
    """Write them."""
    numbers: dict[str, int] = {}
    for target, data in seeds():
        numbers[target] = numbers.get(target, 0) + 1
        folder = ROOT / "tests" / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{numbers[target]}").write_bytes(data)


if __name__ == "__main__":
    main()
