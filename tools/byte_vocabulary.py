"""A vocabulary in which each byte is a token, for small models that are made here."""

from __future__ import annotations

import gguf

__all__ = ["N_BYTES", "add_byte_vocabulary"]

N_BYTES = 256


def _symbols() -> list[str]:
    """Return the printable symbol that stands for each byte in GPT-2's vocabularies, in the order of the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(N_BYTES) if byte not in printable)
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [symbols[byte] for byte in range(N_BYTES)]


def add_byte_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Write the vocabulary into a model file; token n is byte n."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(_symbols())
    writer.add_token_types([gguf.TokenType.NORMAL] * N_BYTES)
    writer.add_token_merges(["! !"])  # none would be refused; its result is no token, so it never applies
