"""HTTP/1.1 messages to test with: a grammar of valid ones, and mutations that make most of them invalid.

All chance comes from a `Dice`, so that one grammar serves both a property test, which can shrink what it
finds, and a long run with a plain generator of random numbers, which is a hundred times faster.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar

from hypothesis import strategies as st

from support.dialects import Kind

__all__ = ["Dice", "RandomDice", "inputs", "mutated", "stream"]

T = TypeVar("T")


class Dice(Protocol):
    """Where choices come from."""

    def pick(self, options: Sequence[T]) -> T:
        """One of them; the first ones are the simplest."""

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""


class RandomDice:
    """Choices by a generator of random numbers."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))


class DrawnDice:
    """Choices by hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"DELETE", b"PATCH", b"BREW", b"M-SEARCH")
TARGETS = (
    b"/",
    b"/a/b?c=d&e",
    b"/%2e%2e//x;p=1",
    b"*",
    b"http://a/b?c",
    b"http://a",
    b"HTTP://a:80?q",
    b"https://[::1]:443/",
    b"/\xc3\xa4",
    b"/a#b",
    b'/"<>\\^`{|}',
    b"//a/b",
    b"/?http://b/",
)
HOSTS = (b"a", b"a:80", b"", b"[::1]:443", b"A.example:8080", b"a:", b"a:x", b"a,b", b"a@b", b"a/b")
STATUSES = (
    b"200 OK",
    b"404 Not Found",
    b"204 No Content",
    b"304 Not Modified",
    b"100 Continue",
    b"103 Early Hints",
    b"101 Switching Protocols",
    b"426 Upgrade Required",
    b"200 ",
    b"200",
    b"500 \xe4\tx",
    b"205 Reset Content",
    b"599 x",
)
FIELDS = (
    b"X-A: 1",
    b"X-B:",
    b"x-a:\t two words \t",
    b"Cookie: a=b; c=\xe4",
    b"Accept: */*",
    b"Connection: keep-alive",
    b"Connection: close",
    b"connection: X-A, close",
    b"Connection: X-A",
    b"Connection: content-length, host, transfer-encoding",
    b"Connection: ,,keep-alive ,\t",
    b"Connection: expect, max-forwards, trailer, te",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c, x/1",
    b"Connection: TE",
    b"TE: trailers, deflate;q=0.5",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: close",
    b"Proxy-Connection: keep-alive",
    b"Expect: 100-continue",
    b"Max-Forwards: 3",
    b"Trailer: X-Sum, Grpc-Status",
    b"Content-Encoding: gzip",
    b"Sec-WebSocket-Key: x",
    b"Date: Mon, 01 Jan 2024 00:00:00 GMT",
)
# Fields that frame a message in a way that contradicts what else frames it, or in no way at all.
ODD_FRAMINGS = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 05",
    b"Content-Length: 0x5",
    b"Content-Length: -0",
    b"Content-Length: 5 5",
    b"Content-Length:",
    b"Content-Length: 99999999999999999999",
    b"Content-Length : 5",
    b"Content_Length: 5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tCHUNKED ",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: ,chunked",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;a=b",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding : chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b" Transfer-Encoding: chunked",
    b"\tContent-Length: 5",
    b"Host: b",
    b"host: a",
)
BODIES = (
    b"hello",
    b"",
    b"x",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\0\xff\n\r" * 5,
    b"y" * 17,
)
EXTENSIONS = (
    b"",
    b"",
    b";a",
    b";a=b",
    b';a="b;c"',
    b" ; a = b",
    b";",
    b";a\x80",
    b';a="\\""',
    b"\t;a",
    b";=",
    b";a;b=c",
)
TRAILERS = (
    b"X-Sum: 1",
    b"Grpc-Status: 0",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Host: b",
    b"Trailer: x",
    b"x:",
    b"Cookie: a",
    b"Connection: close",
    b"Upgrade: x",
)
# What a mutation puts in.
TROUBLE = (
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\t",
    b" ",
    b":",
    b",",
    b";",
    b"=",
    b'"',
    b"\\",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b"\xff",
    b"\x85",
    b"\xe2\x80\xa8",
    b"0",
    b"5",
    b"a",
    b"-",
    b"+",
    b"_",
    b"x",
    b"/",
    b"#",
    b"@",
    b"%0d%0a",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"0\r\n\r\n",
    b"0x",
    b"ffffffffffffffff",
    b"fffffffffffffff",
    b"18446744073709551616",
    b"00000000000000000000005",
    b"999999999999999999",
    b"chunked",
    b"identity",
    b"close",
    b"keep-alive",
    b"upgrade",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.10",
    b"http/1.1",
    b"Content-Length",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Host: b\r\n",
    b"\r\nX: y",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
)


def stream(dice: Dice, kind: Kind) -> bytes:
    """One message or a few, each valid or nearly."""
    count = dice.pick((1, 1, 1, 2, 2, 3))
    return b"".join(message(dice, kind) for _ in range(count))


def message(dice: Dice, kind: Kind) -> bytes:
    """One message: first line, fields in any order, and a body that its framing fits, but for some."""
    version = dice.pick((b"HTTP/1.1",) * 6 + (b"HTTP/1.0",))
    fields = [dice.pick(FIELDS) for _ in range(dice.pick((0, 0, 1, 1, 2, 3, 4)))]
    if kind is Kind.REQUESTS:
        method = dice.pick(METHODS)
        target = dice.pick(TARGETS[:2] * 3 + TARGETS)
        if target == b"*":
            method = b"OPTIONS"
        first = b" ".join((method, target, version))
        if version == b"HTTP/1.1" or dice.number(0, 1):
            fields.append(b"Host: " + dice.pick(HOSTS[:1] * 8 + HOSTS))
    else:
        first = version + b" " + dice.pick(STATUSES[:1] * 6 + STATUSES)
    framing, body = framed(dice)
    fields += framing
    if dice.number(0, 3) == 3:
        fields.append(dice.pick(ODD_FRAMINGS))
    lines = [first, *shuffled(dice, fields), b"", b""]
    return dice.pick((b"",) * 15 + (b"\r\n",)) + b"\r\n".join(lines) + body


def framed(dice: Dice) -> tuple[list[bytes], bytes]:
    """Fields that frame a body, and the body."""
    how = dice.pick(("none", "length", "chunked", "none", "length", "chunked", "until close"))
    if how == "none":
        return [], b""
    body = dice.pick(BODIES)
    if how == "until close":
        return [], body
    if how == "length":
        return [dice.pick((b"Content-Length: ", b"content-length:")) + str(len(body)).encode()], body
    return [dice.pick((b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"))], chunked(dice, body)


def chunked(dice: Dice, body: bytes) -> bytes:
    """`body` in chunks, with all the freedom of RFC 9112 7.1."""
    wire = []
    while body:
        size = dice.number(1, len(body))
        digits = dice.pick((b"%x", b"%X", b"0%x", b"000000000000%X")) % size
        wire.append(digits + dice.pick(EXTENSIONS[:1] * 12 + EXTENSIONS) + b"\r\n" + body[:size] + b"\r\n")
        body = body[size:]
    trailers = [dice.pick(TRAILERS) for _ in range(dice.pick((0, 0, 0, 1, 2)))]
    last = dice.pick((b"0", b"0", b"000", b"0;a=b"))
    return b"".join(wire) + b"\r\n".join((last, *trailers, b"", b""))


def shuffled(dice: Dice, lines: list[bytes]) -> list[bytes]:
    """The lines in another order; only a few places are tried."""
    lines = list(lines)
    if len(lines) > 1:
        for _ in range(2):
            lines.insert(dice.number(0, len(lines) - 1), lines.pop())
    return lines


def mutated(dice: Dice, wire: bytes, times: int) -> bytes:
    """`wire` after some changes, of bytes or of whole lines."""
    for _ in range(times):
        wire = dice.pick(MUTATIONS)(dice, wire)
    return wire


def _insert(dice: Dice, wire: bytes) -> bytes:
    at = dice.number(0, len(wire))
    return wire[:at] + dice.pick(TROUBLE) + wire[at:]


def _replace(dice: Dice, wire: bytes) -> bytes:
    at = dice.number(0, len(wire))
    return wire[:at] + dice.pick(TROUBLE) + wire[at + dice.number(1, 3) :]


def _delete(dice: Dice, wire: bytes) -> bytes:
    at = dice.number(0, len(wire))
    return wire[:at] + wire[at + dice.pick((1, 1, 2, 4)) :]


def _near_an_edge(dice: Dice, wire: bytes) -> bytes:
    """Put something beside a line end, a colon or a space: where scanners differ."""
    edge = dice.pick((b"\r\n", b":", b" ", b"\r\n\r\n", b";", b","))
    places = []
    at = wire.find(edge)
    while at >= 0:
        places.append(at)
        at = wire.find(edge, at + 1)
    if not places:
        return wire
    at = dice.pick(places) + dice.pick((0, len(edge)))
    return wire[:at] + dice.pick(TROUBLE) + wire[at:]


def _change_case(dice: Dice, wire: bytes) -> bytes:
    at = dice.number(0, len(wire))
    end = at + dice.number(1, 12)
    return wire[:at] + wire[at:end].swapcase() + wire[end:]


def _lines(dice: Dice, wire: bytes) -> bytes:
    """Double, drop, move or add a line."""
    lines = wire.split(b"\r\n")
    at = dice.number(0, len(lines) - 1)
    how = dice.pick(("double", "drop", "move", "odd", "field", "double elsewhere"))
    to = dice.number(0, len(lines) - 1)
    if how == "double":
        lines.insert(at, lines[at])
    elif how == "double elsewhere":
        lines.insert(to, lines[at])
    elif how == "drop":
        del lines[at]
    elif how == "move":
        lines.insert(to, lines.pop(at))
    else:
        lines.insert(max(at, 1), dice.pick(ODD_FRAMINGS if how == "odd" else FIELDS))
    return b"\r\n".join(lines)


def _number(dice: Dice, wire: bytes) -> bytes:
    """Change one digit."""
    places = [at for at, byte in enumerate(wire) if 48 <= byte <= 57]
    if not places:
        return wire
    at = dice.pick(places)
    return wire[:at] + b"%d" % dice.number(0, 9) + wire[at + 1 :]


MUTATIONS = (_insert, _replace, _delete, _near_an_edge, _lines, _near_an_edge, _lines, _change_case, _number)


@st.composite
def inputs(draw: st.DrawFn, kind: Kind) -> bytes:
    """Bytes of a connection: half of them valid messages, most of the others nearly, some any bytes at all."""
    dice = DrawnDice(draw)
    how = dice.pick(("valid", "mutated", "valid", "mutated", "mutated", "behind", "any"))
    if how == "any":
        return draw(st.binary(max_size=60))
    wire = stream(dice, kind)
    if how == "behind":
        return wire + draw(st.binary(max_size=20))
    return wire if how == "valid" else mutated(dice, wire, dice.pick((1, 1, 2, 3)))
