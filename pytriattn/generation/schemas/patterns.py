"""Regular expressions of JSON schemas, written so that llama.cpp's grammars enforce them on a JSON string.

llama.cpp takes the characters of a pattern as those of the JSON text. Quotation marks, backslashes and control
characters have to be escaped there, so such characters become the pattern of their escape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "FORMAT_LENGTHS",
    "FORMAT_PATTERNS",
    "FREE_FORMATS",
    "MAX_TIMES",
    "HeldPattern",
    "InvalidPatternError",
    "PatternError",
    "held_pattern",
]

MAX_TIMES = 2000
"""The most repetitions that llama.cpp counts."""
# Formats that llama.cpp knows -> characters of the shortest and of the longest text.
FORMAT_LENGTHS = {"date": (10, 10), "time": (9, 18), "date-time": (20, 29), "uuid": (36, 36)}
FORMAT_LENGTHS |= {f"uuid{n}": (36, 36) for n in range(1, 6)}
# Formats that are held by a pattern, which admits some of their texts.
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMAT_PATTERNS = {
    "email": rf"^[A-Za-z0-9_%+-]+(\.[A-Za-z0-9_%+-]+)*@({_LABEL}\.)+[A-Za-z]{{2,24}}$",
    "hostname": rf"^{_LABEL}(\.{_LABEL})*$",
    "ipv4": rf"^{_BYTE}(\.{_BYTE}){{3}}$",
    "uri": rf"^(http|https|ftp)://{_LABEL}(\.{_LABEL})*(:[1-9][0-9]{{0,3}})?(/[A-Za-z0-9_.~-]*)*$",
    "duration": r"^P([0-9]{1,9}D(T[0-9]{1,9}[HMS])?|T[0-9]{1,9}[HMS])$",
}
FREE_FORMATS = frozenset({"binary", "password", "path", "float", "double", "int64"})
"""Formats that say nothing of the text."""

_MAX_DEPTH = 50
_MAX_CODE = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_SHORT_ESCAPES = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}
_ESCAPED = frozenset(range(0x20)) | {0x22, 0x5C}  # characters that a JSON string has escaped
_BACKSLASH = "[\\x5C]"
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _-,:;@!#%&=~'<>/")
_MANY = 1000  # characters: of so large a set only those with a short escape are taken

Ranges = list[tuple[int, int]]
_DIGITS: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2028, 0x2029), (0xFEFF, 0xFEFF)]
_LINE_ENDS: Ranges = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "0": 0x00}


class PatternError(ValueError):
    """A pattern has no equivalent in a grammar; the text says why."""


class InvalidPatternError(PatternError):
    """A pattern is no regular expression; the text says why."""


class HeldPattern(NamedTuple):
    """A pattern of the kind that llama.cpp's converter takes.

    Attributes:
        text: the pattern.
        min_length: characters of the shortest string that it admits.
        max_length: of the longest one; infinite if there is none.
    """

    text: str
    min_length: float
    max_length: float


def held_pattern(pattern: str) -> HeldPattern:
    """Return a pattern that admits JSON strings whose values match `pattern`.

    Raises:
        PatternError: there is none (InvalidPatternError: it is no regular expression).
    """
    if not pattern.startswith("^") or not _ends_with_anchor(pattern):
        raise PatternError("it must begin with '^' and end with '$'")
    parser = _Parser(pattern[1:-1])
    found = parser.alternatives()
    if not parser.at_end:
        raise InvalidPatternError("it has a ')' too many")
    return HeldPattern(f"^{found.text}$", found.min_length, found.max_length)


def _ends_with_anchor(pattern: str) -> bool:
    before = pattern[:-1]
    n_backslashes = len(before) - len(before.rstrip("\\"))
    return len(pattern) > 1 and pattern.endswith("$") and n_backslashes % 2 == 0


class _Parser:
    """Reads a pattern, without its anchors, and writes it anew."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._text)

    def alternatives(self) -> HeldPattern:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return HeldPattern(
            "|".join(part.text for part in parts),
            min(part.min_length for part in parts),
            max(part.max_length for part in parts),
        )

    def _sequence(self) -> HeldPattern:
        texts: list[str] = []
        low = high = 0.0
        while not self.at_end and self._text[self._at] not in "|)":
            part = self._repeated(self._atom())
            texts.append(part.text)
            low, high = low + part.min_length, high + part.max_length
        return HeldPattern("".join(texts), low, high)

    def _repeated(self, atom: HeldPattern) -> HeldPattern:
        if self._take("*"):
            text, low, high = "*", 0, math.inf
        elif self._take("+"):
            text, low, high = "+", 1, math.inf
        elif self._take("?"):
            text, low, high = "?", 0, 1
        elif self._take("{"):
            text, low, high = self._bounds()
        else:
            return atom
        self._take("?")  # lazy or not, the strings are the same
        longest = 0 if atom.max_length == 0 else atom.max_length * high if high else 0
        return HeldPattern(atom.text + text, atom.min_length * low, longest)

    def _bounds(self) -> tuple[str, int, float]:
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at : max(end, self._at)].partition(",")
        if end < 0 or not _is_count(low) or (high and not _is_count(high)):
            raise PatternError("'{' must begin a repetition such as {2,3}")
        self._at = end + 1
        least = int(low)
        most = math.inf if comma and not high else int(high or low)
        if most < least:
            raise InvalidPatternError(f"the repetition {{{low},{high}}} has its bounds the wrong way round")
        if max(least, 0 if most == math.inf else most) > MAX_TIMES:
            raise PatternError(f"more than {MAX_TIMES} repetitions cannot be counted")
        return f"{{{least},{'' if most == math.inf else int(most)}}}" if most != least else f"{{{least}}}", least, most

    def _atom(self) -> HeldPattern:
        c = self._text[self._at]
        if c == "(":
            return self._group()
        self._at += 1
        if c == "[":
            return _one_of(self._class())
        if c == ".":
            return _one_of(_complement(_LINE_ENDS))
        if c == "\\":
            return _one_of(self._escape())
        if c in "*+?":
            raise InvalidPatternError(f"there is nothing before '{c}' to repeat")
        if c in "^$":
            raise PatternError("it has an anchor in the middle")
        if c in "]{}":
            raise PatternError(f"'{c}' must be written as '\\{c}'")
        return _one_of([(ord(c), ord(c))])

    def _group(self) -> HeldPattern:
        self._at += 1
        if self._take("?") and not self._take(":"):
            raise PatternError("it has a group of a special kind, such as look-around")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternError(f"its groups are nested more than {_MAX_DEPTH} deep")
        inner = self.alternatives()
        if not self._take(")"):
            raise InvalidPatternError("a ')' is missing")
        self._depth -= 1
        return inner._replace(text=f"({inner.text})")

    def _class(self) -> Ranges:
        is_negated = self._take("^")
        found: Ranges = []
        while not self._take("]"):
            first = self._class_member()
            if self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._class_member()
                if len(first) != 1 or len(last) != 1 or first[0][0] != first[0][1] or first[0][0] > last[0][1]:
                    raise InvalidPatternError("a range of characters has its ends the wrong way round")
                first = [(first[0][0], last[0][1])]
            found += first
        return _complement(found) if is_negated else found

    def _class_member(self) -> Ranges:
        if self.at_end:
            raise InvalidPatternError("a ']' is missing")
        c = self._text[self._at]
        self._at += 1
        if c != "\\":
            return [(ord(c), ord(c))]
        if self._take("b"):
            return [(0x08, 0x08)]
        return self._escape()

    def _escape(self) -> Ranges:
        if self.at_end:
            raise InvalidPatternError("it ends with a backslash")
        c = self._text[self._at]
        self._at += 1
        sets = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
        if c.lower() in sets:
            return sets[c] if c in sets else _complement(sets[c.lower()])
        if c in "xu":
            return [(code := self._hex(2 if c == "x" else 4), code)]
        if c in _CONTROLS:
            return [(_CONTROLS[c], _CONTROLS[c])]
        if c.isalnum():
            names = {
                "b": "word boundaries",
                "B": "word boundaries",
                "p": "Unicode properties",
                "P": "Unicode properties",
            }
            what = "back references" if c.isdigit() else names.get(c, "an escape that is not known: " + c)
            raise PatternError(f"it has {what}")
        return [(ord(c), ord(c))]

    def _hex(self, n: int) -> int:
        digits = self._text[self._at : self._at + n]
        if len(digits) < n or not all(d in "0123456789abcdefABCDEF" for d in digits):
            raise InvalidPatternError(f"an escape needs {n} hexadecimal digits")
        self._at += n
        return int(digits, 16)

    def _take(self, c: str) -> bool:
        if self._text[self._at : self._at + 1] != c:
            return False
        self._at += 1
        return True


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    result, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    return [*result, (start, _MAX_CODE)] if start <= _MAX_CODE else result


def _one_of(ranges: Ranges) -> HeldPattern:
    """Return the pattern of one character of a set, as a JSON string has it."""
    is_large = sum(high - low + 1 for low, high in ranges) > _MANY
    escaped = [code for code in sorted(_ESCAPED) if any(low <= code <= high for low, high in ranges)]
    if is_large:
        escaped = [code for code in escaped if code in _SHORT_ESCAPES]
    # what is neither escaped nor half of a character
    out = [*((code, code) for code in _ESCAPED), _SURROGATES, *_complement(ranges)]
    plain = _complement(out)
    if not plain and not escaped:
        raise PatternError("it has a set of characters that no JSON string can hold")
    if not escaped and len(plain) == 1 and plain[0][0] == plain[0][1] and chr(plain[0][0]) in _PLAIN:
        return HeldPattern(chr(plain[0][0]), 1, 1)
    ways = ["[" + "".join(_range(low, high) for low, high in plain) + "]"] if plain else []
    short = "".join(_in_class(ord(_SHORT_ESCAPES[code])) for code in escaped if code in _SHORT_ESCAPES)
    ways += [f"{_BACKSLASH}[{short}]"] if short else []
    ways += [f"{_BACKSLASH}u{code:04x}" for code in escaped if code not in _SHORT_ESCAPES]
    return HeldPattern(ways[0] if len(ways) == 1 and plain else f"({'|'.join(ways)})", 1, 1)


def _range(low: int, high: int) -> str:
    return _in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}"


def _in_class(code: int) -> str:
    """Return a character as it stands between square brackets of a grammar."""
    if chr(code).isascii():
        return chr(code) if chr(code).isalnum() else f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
