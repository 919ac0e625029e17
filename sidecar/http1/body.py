"""Where a body ends (RFC 9112 sections 6.3 and 7.1), and what of it goes on.

Three readers with one method, `feed(data, start) -> (bytes that go on, offset behind the body)`, and `done`.
A chunked body is followed strictly, and its bytes pass as they came where there is nothing to take out:
chunk extensions are dropped (section 7.1.1 lets a recipient ignore them, and they are where smuggling
hides), and so are trailer fields that nobody announced or that may not stand there (RFC 9110 6.5.1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from sidecar.errors import ProtocolError, Reason
from sidecar.http1.fields import CONTROLS, ORDINARY, classify
from sidecar.http1.message import CHUNKED, UNTIL_CLOSE

if TYPE_CHECKING:
    from sidecar.http1.message import RequestHead, ResponseHead

__all__ = [
    "MAX_TRAILERS",
    "BodyReader",
    "ChunkedReader",
    "LengthReader",
    "UntilCloseReader",
    "request_reader",
    "response_reader",
]

MAX_SIZE_DIGITS = 15  # of hexadecimal, leading zeros among them
# Bytes of one chunk: what a reader that counts in 32 bits with a sign takes for the same number (HAProxy's bound).
MAX_CHUNK = 2**31 - 1
MAX_EXTENSION = (
    1024  # bytes of one chunk-size line; Go stops at 4 KiB a body, hyper at 16 KiB, Node at 16 KiB
)
MAX_TRAILERS = 8192  # bytes of all trailer lines; they carry checksums and statuses, not documents

# RFC 9112 7.1.1, each extension a name, perhaps with a token or a quoted string.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:%b)*" % (MAX_SIZE_DIGITS, _EXTENSION))
# RFC 9110 6.5.1 and RFC 7230 4.1.2: framing, routing, request modifiers, authentication, response control data
# and content format never come late. Those that `fields` knows by another kind are not repeated here.
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"age",
        b"authentication-info",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"forwarded",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"via",
        b"warning",
        b"www-authenticate",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    )
)

_SIZE = 0
_DATA = 1
_DATA_END = 2
_TRAILER = 3
_DONE = 4


class BodyReader(Protocol):
    """What the data path sees of a body that did not come whole with its head."""

    done: bool

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Take `data` from `start`: what goes on, and the offset of what follows the body.

        Raises ProtocolError, whose `passed` is what of `data` goes on before the place where it is wrong.
        """


class LengthReader:
    """Counts down the `left` bytes of a body with Content-Length."""

    __slots__ = ("done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = left == 0

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Take at most what is left of the body."""
        end = start + self.left
        size = len(data)
        if size >= end:
            self.left = 0
            self.done = True
        else:
            end = size
            self.left -= size - start
        return (data if end == size and not start else data[start:end]), end

    def skip(self, size: int) -> None:
        """So much of the body has gone another way."""
        self.left -= size
        self.done = self.left == 0


class UntilCloseReader:
    """A response body that ends with its connection; `done` never turns true here.

    reframe: give it out as chunks, so that an HTTP/1.1 client can tell the end from a break.
    """

    __slots__ = ("_reframe", "done")

    def __init__(self, *, reframe: bool) -> None:
        self._reframe = reframe
        self.done = False

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Take everything, as one chunk when reframing; nothing makes no chunk, as an empty one is the end."""
        piece = data[start:] if start else data
        if self._reframe and piece:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        return piece, len(data)

    @property
    def ending(self) -> bytes:
        """What goes on once the connection has closed: the last chunk, or nothing."""
        return b"0\r\n\r\n" if self._reframe else b""


class ChunkedReader:
    """Follows one chunked body through any split of its bytes.

    announced: lower-case names of the trailer fields that go on; None: all that may stand there.
    decode: give out the data alone (for HTTP/1.0 clients) instead of the chunked framing.
    done: the body has ended; what `feed` said follows it belongs to the next message.
    """

    __slots__ = ("_announced", "_decode", "_held", "_left", "_state", "_trailer_bytes", "done")

    def __init__(self, announced: frozenset[bytes] | None = None, *, decode: bool = False) -> None:
        self._announced = announced
        self._decode = decode
        self._held = b""  # an unfinished line
        self._left = 0
        self._state = _SIZE
        self._trailer_bytes = 0
        self.done = False

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Take `data` from `start`: (bytes that go on, offset behind the body or len(data) while it goes on).

        Raises ProtocolError when the framing is not exactly RFC 9112's; its `passed` is what goes on before.
        """
        pieces: list[bytes] = []
        try:
            at = self._follow(data, start, pieces)
        except ProtocolError as error:
            error.passed = b"".join(pieces)
            raise
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at

    def _follow(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        size = len(data)
        while at < size and not self.done:
            if self._state == _DATA:
                take = min(self._left, size - at)
                pieces.append(data[at : at + take] if take != size or at else data)
                at += take
                self._left -= take
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                at = self._data_end(data, at, pieces)
            else:
                line, at = self._line(data, at)
                if line is None:
                    break
                if self._state == _SIZE:
                    self._size_line(line, pieces)
                else:
                    self._trailer_line(line, pieces)
        return at

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """One line without its CRLF, and the offset behind it; None holds what has come of it."""
        end = data.find(b"\n", at)
        self._check_length(len(self._held) + (len(data) if end < 0 else end) - at)
        if end < 0:
            self._held += data[at:]
            return None, len(data)
        line = self._held + data[at : end + 1]
        self._held = b""
        if line[-2:] != b"\r\n":
            raise ProtocolError("a line of the chunked framing ends in a bare LF")
        return line[:-2], end + 1

    def _check_length(self, size: int) -> None:
        """Refuse a line whose first `size` bytes, CR included but not LF, are too many already."""
        if self._state == _SIZE:
            if size > MAX_EXTENSION + 1:
                raise ProtocolError("a chunk-size line is too long", 400, Reason.TOO_LARGE)
        elif size > 1 and self._trailer_bytes + size + 1 > MAX_TRAILERS:
            raise ProtocolError("more trailer bytes than are allowed", 431, Reason.TOO_LARGE)

    def _size_line(self, line: bytes, pieces: list[bytes]) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("a chunk-size line is not hexadecimal digits with extensions")
        digits = match[1]
        self._left = int(digits, 16)
        if self._left > MAX_CHUNK:
            raise ProtocolError("a chunk is too large", 400, Reason.TOO_LARGE)
        if self._left:
            self._state = _DATA
            if not self._decode:
                pieces.append(digits + b"\r\n")
        else:
            self._state = _TRAILER
            if not self._decode:
                pieces.append(b"0\r\n")

    def _data_end(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Expect the CRLF behind a chunk's data, which may come in two pieces."""
        ends = self._held + data[at : at + 2 - len(self._held)]
        if not b"\r\n".startswith(ends):
            raise ProtocolError("a chunk's data does not end where its size says")
        at += len(ends) - len(self._held)
        if len(ends) < 2:
            self._held = ends
            return at
        self._held = b""
        self._state = _SIZE
        if not self._decode:
            pieces.append(ends)
        return at

    def _trailer_line(self, line: bytes, pieces: list[bytes]) -> None:
        if not line:
            self._state = _DONE
            self.done = True
            if not self._decode:
                pieces.append(b"\r\n")
            return
        self._trailer_bytes += len(line) + 2
        name, colon, _ = line.partition(b":")
        kind = classify(name)
        if not colon or kind < 0 or len(line.translate(None, CONTROLS)) != len(line):
            raise ProtocolError("a trailer line is not a name, a colon and a value")
        if self._decode or kind != ORDINARY:
            return
        name = name.lower()
        if name not in _FORBIDDEN_TRAILERS and (self._announced is None or name in self._announced):
            pieces.append(line + b"\r\n")


def request_reader(head: RequestHead) -> BodyReader:
    """What follows the body of a request that has one."""
    if head.length == CHUNKED:
        return ChunkedReader(head.extras.trailers)
    return LengthReader(head.length)


def response_reader(head: ResponseHead, request: RequestHead) -> BodyReader:
    """What follows the body of a response, and frames it for who asked: HTTP/1.0 knows no chunks."""
    if head.length == UNTIL_CLOSE:
        return UntilCloseReader(reframe=request.minor == 1)
    if head.length != CHUNKED:
        return LengthReader(head.length)
    if not request.minor:
        return ChunkedReader(decode=True)
    return ChunkedReader(None if request.extras.takes_trailers else head.extras.trailers)
