"""Readers of HTTP/1.1 as servers in the field have been: each takes liberties, and no two the same ones.

Each says how many messages it sees in a row of bytes. Bytes which they do not agree on are what request smuggling
is made of, so they are let loose on whatever came out of the proxy. Everything here has stood in some server's
advisory; what no proxy can help is left out: an origin that takes GET bodies for requests, or counts a
Content-Length with 32 bits, or breaks lines at bytes which UTF-8 is made of.
"""

import re
from dataclasses import dataclass, replace
from itertools import product

__all__ = ["PERSONALITIES", "Personality", "Sight"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one reader sees. begun: the target (or status) of every message it took for one, the last perhaps not
    whole. rest: bytes that no whole message accounts for; they would stand before whatever comes next.
    """

    begun: tuple[bytes, ...]
    rest: bytes


@dataclass(frozen=True, slots=True)
class Personality:
    """One way of reading. Without any switch: CRLF, exact names, plain numbers, and no check whatever.

    line_end: what ends a line: `crlf`, `lf` (a bare one too), `cr` (a bare one too), `any` (and VT, FF, FS, GS, RS).
    winner: which of Transfer-Encoding and Content-Length frames a message that has both, `te` or `cl`.
    coding: `exact`; `contains` (anywhere in the value); `first` or `last` (of the list); `case` (as it is spelt).
    repeated: which of several fields, or of a list of lengths, counts: `first` or `last`.
    length: `digits` (else ignored); `atoi` (sign, blanks, whatever follows); `python` (int()); `hex` (what is
        not decimal); `octal` (behind a leading zero).
    blanks: white space before the colon is forgiven; controls: NUL, control characters and NBSP are white space.
    folded: a line that begins with a blank goes on with the one before. underscore: `_` in a name is `-`.
    size: of a chunk, `hex`; `strtol` (sign, 0x, whatever follows); `python` (int(..., 16)).
    bits: that lengths and sizes are kept in. extension: `skipped`; `refused`; `ends` (a `;` ends the line).
    loose_end: the two bytes behind a chunk's data may be missing; else they are skipped, whatever they are.
    merged: trailer fields count as header fields do.
    """

    line_end: str = "crlf"
    winner: str = "te"
    coding: str = "exact"
    repeated: str = "first"
    length: str = "digits"
    blanks: bool = False
    controls: bool = False
    folded: bool = False
    underscore: bool = False
    size: str = "hex"
    bits: int = 64
    extension: str = "skipped"
    loose_end: bool = False
    merged: bool = False

    def __str__(self) -> str:
        default = Personality()
        return ", ".join(
            f"{name}={getattr(self, name)}"
            for name in self.__slots__
            if getattr(self, name) != getattr(default, name)
        )

    def requests(self, data: bytes) -> Sight:
        """The requests it sees."""
        return self._messages(data, response=False, bodiless=False, closed=False)

    def responses(self, data: bytes, *, bodiless: bool = False, closed: bool = False) -> Sight:
        """The responses it sees, interim ones among them. bodiless: they answer HEAD. closed: that is all."""
        return self._messages(data, response=True, bodiless=bodiless, closed=closed)

    def _messages(self, data: bytes, *, response: bool, bodiless: bool, closed: bool) -> Sight:
        begun: list[bytes] = []
        at = 0
        while True:
            while match := _LINE_ENDS[self.line_end].match(data, at):
                at = match.end()
            if at == len(data):
                return Sight(tuple(begun), b"")
            lines, end = self._head(data, at)
            words = lines[0].split() if lines else []
            if words:
                begun.append(words[1] if len(words) > 1 else words[0])
            if end < 0:
                return Sight(tuple(begun), data[at:])
            fields = self._fields(lines[1:])
            chunked, length = self._framing(fields)
            if response and (bodiless or begun[-1:] in ([b"204"], [b"304"]) or begun[-1:] < [b"200"]):
                chunked, length = False, 0
            if response and not chunked and length is None:
                end = len(data) if closed else -1
            elif chunked:
                end = self._chunks(data, end)
            else:
                end += length or 0
            if not 0 <= end <= len(data):
                return Sight(tuple(begun), data[at:])
            at = end

    def _head(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """The lines of a head and the offset behind it, -1 while it goes on."""
        lines: list[bytes] = []
        for match in _LINE_ENDS[self.line_end].finditer(data, at):
            line, at = data[at : match.start()], match.end()
            if not line:
                return lines, at
            if self.folded and lines and line[:1] in b" \t":
                lines[-1] += b" " + line.strip(b" \t")
            else:
                lines.append(line)
        return lines, -1

    def _fields(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        white = _CONTROLS if self.controls else b" \t"
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.lower()
            if self.blanks or self.controls:
                name = name.strip(white)
            if self.underscore:
                name = name.replace(b"_", b"-")
            found.append((name, value.strip(white)))
        return found

    def _framing(self, fields: list[tuple[bytes, bytes]]) -> tuple[bool, int | None]:
        """Whether chunked, and the length if one is said; the one that loses is not told."""
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        lengths = [
            number.strip(b" \t")
            for name, value in fields
            if name == b"content-length"
            for number in value.split(b",")
        ]
        at = 0 if self.repeated == "first" else -1
        chunked = bool(codings) and self._is_chunked(codings[at])
        length = self._number(lengths[at]) if lengths else None
        if chunked and length is not None:
            return (False, length) if self.winner == "cl" else (True, None)
        return chunked, length

    def _is_chunked(self, value: bytes) -> bool:
        if self.coding == "case":
            return value == b"chunked"
        value = value.lower()
        if self.coding == "contains":
            return b"chunked" in value
        if self.coding in ("first", "last"):
            return value.split(b",")[0 if self.coding == "first" else -1].strip(b" \t") == b"chunked"
        return value == b"chunked"

    def _number(self, value: bytes) -> int | None:
        match = _LENGTHS[self.length].match(value)
        if match is None:
            return None
        base = 10
        if self.length == "hex" and not value.isdigit():
            base = 16
        elif self.length == "octal" and value.startswith(b"0"):
            base = 8
        return self._kept(int(match[1].replace(b"_", b""), base))

    def _kept(self, number: int) -> int:
        """A number as it is left in a signed integer of so many bits; below zero is none."""
        number %= 1 << self.bits
        return 0 if number >> (self.bits - 1) else number

    def _chunks(self, data: bytes, at: int) -> int:
        """The offset behind a chunked body, -1 when it goes on or is not one."""
        ends = _LINE_ENDS[self.line_end]
        while True:
            end = ends.search(data, at)
            if end is None:
                return -1
            line, at = data[at : end.start()], end.end()
            if self.extension == "ends" and b";" in line:
                at -= len(end[0]) + len(line) - line.index(b";") - 1
                line = line[: line.index(b";")]
            size = self._size(line)
            if size < 0:
                return -1
            if not size:
                return self._trailers(data, at)
            at += size
            if self.loose_end:
                behind = ends.match(data, at)
                at = behind.end() if behind else at
            else:
                at += 2

    def _size(self, line: bytes) -> int:
        if self.extension == "refused" and b";" in line:
            return -1
        match = _SIZES[self.size].match(line)
        if match is None:
            return -1
        negative = b"-" in match[0]
        number = int(match[1].replace(b"_", b"") or b"0", 16)
        return self._kept(-number if negative else number)

    def _trailers(self, data: bytes, at: int) -> int:
        lines: list[bytes] = []
        for end in _LINE_ENDS[self.line_end].finditer(data, at):
            line, at = data[at : end.start()], end.end()
            if line:
                lines.append(line)
                continue
            if self.merged:
                chunked, length = self._framing(self._fields(lines))
                return self._chunks(data, at) if chunked else at + (length or 0)
            return at
        return -1


_CONTROLS = bytes([*range(33), 127, 0xA0])
_LINE_ENDS = {
    "crlf": re.compile(rb"\r\n"),
    "lf": re.compile(rb"\r?\n"),
    "cr": re.compile(rb"\r\n?|\n"),
    "any": re.compile(rb"\r\n|[\r\n\x0b\x0c\x1c-\x1e]"),
}
_LENGTHS = {
    "digits": re.compile(rb"([0-9]+)\Z"),
    "atoi": re.compile(rb"[\x00-\x20]*([+-]?[0-9]+)"),
    "python": re.compile(rb"\s*([+-]?[0-9]+(?:_[0-9]+)*)\s*\Z"),
    "hex": re.compile(rb"[\x00-\x20]*(?:0[xX])?([0-9A-Fa-f]+)"),
    "octal": re.compile(rb"([1-9][0-9]*|0[0-7]*)"),
}
_SIZES = {
    "hex": re.compile(rb"[ \t]*([0-9A-Fa-f]+)[ \t]*(?:;|\Z)"),
    "strtol": re.compile(rb"[\x00-\x20]*[+-]?(?:0[xX])?([0-9A-Fa-f]*)"),
    "python": re.compile(rb"\s*[+-]?(?:0[xX])?([0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*)\s*(?:;|\Z)"),
}

# Every liberty alone, and some that go together; each with both winners and every line end.
_LIBERTIES = [
    Personality(),
    Personality(coding="contains"),
    Personality(coding="first"),
    Personality(coding="last"),
    Personality(repeated="last"),
    Personality(repeated="last", coding="last"),
    Personality(length="atoi"),
    Personality(length="python"),
    Personality(length="hex"),
    Personality(blanks=True),
    Personality(folded=True, blanks=True),
    Personality(controls=True),
    Personality(controls=True, coding="contains", length="atoi"),
    Personality(size="strtol"),
    Personality(size="python"),
    Personality(extension="refused"),
    Personality(extension="ends"),
    Personality(loose_end=True),
    Personality(merged=True),
    Personality(
        coding="contains",
        repeated="last",
        length="atoi",
        blanks=True,
        controls=True,
        folded=True,
        size="strtol",
        loose_end=True,
        merged=True,
    ),
]
PERSONALITIES = [
    replace(liberty, winner=winner, line_end=line_end)
    for liberty, winner, line_end in product(_LIBERTIES, ("te", "cl"), ("crlf", "lf", "cr", "any"))
]
