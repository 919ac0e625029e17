"""Request and response heads: one strict scan (RFC 9112 sections 2 to 6), and the head that goes on.

`scan_request` and `scan_response` look at the bytes from `start` and return a head, None when its end has
not come yet, or raise `ProtocolError`. A head keeps the lines it came in: `render` joins them again with
the few lines that belong to one hop left out, so names keep their case, order and duplicates stay, and the
target is never touched.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from sidecar.errors import ProtocolError, Reason
from sidecar.http1.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    CONTROLS,
    DROPPED,
    HOST,
    KINDS,
    MAX_LENGTH_DIGITS,
    ORDINARY,
    TOKEN,
    TRANSFER_ENCODING,
    classify,
)
from sidecar.model.stats import METHODS

__all__ = [
    "CHUNKED",
    "MAX_LINES",
    "UNTIL_CLOSE",
    "RequestHead",
    "ResponseHead",
    "scan_request",
    "scan_response",
]

MAX_LINES = 256  # header lines in one head (behaviour.md; Apache allows 100, Envoy 100, nginx by bytes alone)

# Values of `length` that are not a number of bytes.
CHUNKED = -1
UNTIL_CLOSE = -2

_METHODS = {name.encode(): index for index, name in enumerate(METHODS[:-1])}
_OTHER_METHOD = len(METHODS) - 1
# RFC 9110 9.2.2, by index into METHODS: GET HEAD PUT DELETE OPTIONS TRACE.
_IDEMPOTENT = frozenset(METHODS.index(name) for name in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
_CONNECT = METHODS.index("CONNECT")
_OPTIONS = METHODS.index("OPTIONS")
HEAD_METHOD = METHODS.index("HEAD")

# RFC 3986 3.2.2 and 3.2.3 by their characters: reg-name, IP-literal, port. No user info, no white space.
_AUTHORITY = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
# RFC 9112 3.2: origin-form, absolute-form or asterisk-form, by their beginnings and their characters; bytes
# above 127 pass, as applications send raw UTF-8 and endpoints read it. Only OPTIONS has the asterisk.
_TARGET = re.compile(rb"/[!-~\x80-\xff]*|[Hh][Tt][Tt][Pp][Ss]?://[!-~\x80-\xff]+|\*")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?")
# What nearly every endpoint sends, so that it costs one look-up.
_USUAL_STATUS_LINES = {
    b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()): status.value
    for status in HTTPStatus
    if status.value < 600
}
_ANY_VERSION = re.compile(rb"HTTP/[0-9](?:\.[0-9])?")
_PLAIN_OPTIONS = frozenset((b"", b"close", b"keep-alive"))
_CODING = TOKEN + b'; ="'  # a transfer coding with its parameters, by its characters (RFC 9112 7)
_FRAMING = frozenset((CONTENT_LENGTH, TRANSFER_ENCODING))
_UNSAFE_TO_DROP = _FRAMING | {HOST}


class RequestHead:
    """One request head.

    method: index into `METHODS`; target: as it came; minor: 0 or 1 of HTTP/1.x.
    length: bytes of body that follow, or `CHUNKED`.
    size: bytes that the head took of the input, the blank line included.
    keep_alive: the client wants the connection kept.
    """

    __slots__ = (
        "_host",
        "_lines",
        "keep_alive",
        "length",
        "method",
        "minor",
        "size",
        "target",
    )

    def __init__(self, lines: list[bytes], method: int, target: bytes, minor: int, size: int) -> None:
        self._lines = lines
        self._host = 0
        self.method = method
        self.target = target
        self.minor = minor
        self.length = 0
        self.size = size
        self.keep_alive = minor == 1

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice means no more than sending it once (RFC 9110 9.2.2)."""
        return self.method in _IDEMPOTENT

    def render(self, authority: bytes, body: bytes = b"") -> bytes:
        """The head for an endpoint, followed by what has come of the body, in one piece.

        authority: replaces the value of Host in its place; empty keeps the application's.
        """
        lines = self._lines
        if authority:
            name = lines[self._host].partition(b":")[0]
            lines[self._host] = b"%b: %b" % (name, authority)
        return b"%b\r\n\r\n%b" % (b"\r\n".join(lines), body)


class ResponseHead:
    """One response head.

    status: 100 to 599; length: bytes of body that follow, `CHUNKED` or `UNTIL_CLOSE`.
    size: bytes that the head took of the input; keep_alive: the endpoint lets the connection be used again.
    passes_whole: no line of it belongs to one hop, so its bytes may pass as they came.
    """

    __slots__ = ("_lines", "keep_alive", "length", "minor", "passes_whole", "size", "status")

    def __init__(self, lines: list[bytes], status: int, minor: int, size: int) -> None:
        self._lines = lines
        self.status = status
        self.minor = minor
        self.size = size
        self.length = 0
        self.keep_alive = minor == 1
        self.passes_whole = minor == 1

    def drop_framing(self) -> None:
        """Take Content-Length and Transfer-Encoding out: the body goes on in another framing, or there is none."""
        self.passes_whole = False
        self._lines[1:] = [
            line for line in self._lines[1:] if classify(line.partition(b":")[0]) not in _FRAMING
        ]

    def render(self, extra: bytes, body: bytes = b"") -> bytes:
        """The head for the client, followed by what has come of the body, in one piece.

        extra: header lines of our own hop, each with its line end, for example `Connection: close`.
        """
        return b"%b\r\n%b\r\n%b" % (b"\r\n".join(self._lines), extra, body)


def scan_request(data: bytes, start: int = 0) -> RequestHead | None:
    """Scan the request head that begins at `start`; None while its blank line has not come.

    Raises ProtocolError with the status it deserves: 400, 431 (too many lines), 501 (a transfer coding or
    method that is not served), 505 (another version). The caller bounds how long a head may grow.
    """
    if len(data) > start and data[start] not in TOKEN:
        raise ProtocolError("the first byte is not the start of an HTTP request")
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        line_end = data.find(b"\r\n", start)
        if line_end >= 0:  # another protocol's client need not wait for a time-out to hear that this is HTTP
            _read_request_line(data[start:line_end])
        _refuse_bare_ends(data, start)
        return None
    lines = data[start:end].split(b"\r\n")
    name, target, method, minor = _read_request_line(lines[0])
    _check_lines(data, start, end, len(lines) - 1)
    head = RequestHead(lines, method, target, minor, end + 4 - start)
    length, chunked, host = _read_fields(head, lines, request=True)
    if chunked:
        head.length = CHUNKED
    elif length is not None:
        head.length = length
    if not host:
        if minor:
            raise ProtocolError("Host is missing")
        lines.insert(1, b"Host: ")
        host = 1
    head._host = host
    if minor == 0:
        lines[0] = b"%b %b HTTP/1.1" % (name, target)  # a proxy speaks its own version (RFC 9112 2.3)
    return head


def _read_request_line(line: bytes) -> tuple[bytes, bytes, int, int]:
    """Method, target, index of the method, minor version (RFC 9112 section 3)."""
    try:
        name, target, version = line.split(b" ")
    except ValueError:
        raise ProtocolError("the request line is not method, target and version") from None
    if len(line.translate(None, CONTROLS)) != len(line):
        raise ProtocolError("a control character in the request line")
    method = _METHODS.get(name, _OTHER_METHOD)
    if method == _OTHER_METHOD and (not name or name.translate(None, TOKEN)):
        raise ProtocolError("the method is not a token")
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    elif _ANY_VERSION.fullmatch(version):
        raise ProtocolError("only HTTP/1.1 and HTTP/1.0 are served here", 505)
    else:
        raise ProtocolError("the request line does not end in an HTTP version")
    if method == _CONNECT:
        raise ProtocolError("CONNECT is not served here", 501)
    # Nothing but a tab is left that a path must not hold; the rest is for the rarer forms.
    plain = target[:1] == b"/" and b"\t" not in target
    if not plain and (not _TARGET.fullmatch(target) or (target == b"*" and method != _OPTIONS)):
        raise ProtocolError("the request target is neither a path nor a URL, or holds a forbidden character")
    return name, target, method, minor


def _check_lines(data: bytes, start: int, end: int, ends: int) -> None:
    """Refuse control characters (a bare CR or LF among them) and too many lines. ends: line ends in between."""
    block = data[start:end]
    if len(block.translate(None, CONTROLS)) != len(block) - 2 * ends:
        raise ProtocolError("a control character, a bare CR or a bare LF in the head")
    if ends > MAX_LINES:
        raise ProtocolError(f"more than {MAX_LINES} header lines", 431, Reason.TOO_LARGE)


def _refuse_bare_ends(data: bytes, start: int) -> None:
    """Refuse an unfinished head that can no longer become a valid one, instead of waiting for its end."""
    pairs = data.count(b"\r\n", start)
    pending = data.endswith(b"\r")  # its LF may be on the way
    if data.count(b"\n", start) != pairs or data.count(b"\r", start) - pending != pairs:
        raise ProtocolError("a bare CR or a bare LF in the head")


def _read_fields(
    head: RequestHead | ResponseHead, lines: list[bytes], *, request: bool
) -> tuple[int | None, bool, int]:
    """What the header fields say: Content-Length, whether chunked, and where Host stands (0: nowhere).

    Sets `keep_alive` and takes the lines of this hop out of `lines`. A Host in a response means nothing.
    """
    length = coding = None
    host = 0
    dropped: list[int] = []
    options: list[bytes] = []
    for at in range(1, len(lines)):
        name, colon, value = lines[at].partition(b":")
        kind = KINDS.get(name)
        if kind is None:
            kind = classify(name)
        if not colon or kind < 0:
            raise ProtocolError("a header line is not a name, a colon and a value")
        if kind == ORDINARY:
            continue
        if kind == CONNECTION:
            options += _options(value)
            dropped.append(at)
        elif kind == DROPPED:
            dropped.append(at)
        elif kind == CONTENT_LENGTH:
            length = _content_length(value, length)
        elif kind == TRANSFER_ENCODING:
            coding = _transfer_coding(value, coding)
        elif request:  # HOST
            if host or not _AUTHORITY.fullmatch(value.strip(b" \t")):
                raise ProtocolError("Host is repeated or not a host and port")
            host = at
    if coding is not None and (length is not None or head.minor == 0):
        raise ProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
    if options:
        if b"close" in options:
            head.keep_alive = False
        elif head.minor == 0 and b"keep-alive" in options:
            head.keep_alive = True
        _drop_nominated(lines, options, dropped)
    for at in reversed(dropped):
        del lines[at]
        if at < host:
            host -= 1
    return length, coding is not None, host


def scan_response(data: bytes, start: int, method: int) -> ResponseHead | None:
    """Scan the response head that begins at `start`; None while its blank line has not come.

    method: of the request it answers, index into `METHODS`; a HEAD's response has no body.
    Raises ProtocolError for anything malformed or ambiguous.
    """
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        if not b"HTTP/1.".startswith(data[start : start + 7]):
            raise ProtocolError("the response does not start with HTTP/1.x")
        _refuse_bare_ends(data, start)
        return None
    lines = data[start:end].split(b"\r\n")
    _check_lines(data, start, end, len(lines) - 1)
    status = _USUAL_STATUS_LINES.get(lines[0])
    minor = 1
    if status is None:
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise ProtocolError("the status line is malformed")
        status = int(match[2])
        minor = int(match[1])
    head = ResponseHead(lines, status, minor, end + 4 - start)
    came = len(lines)
    length, chunked, _ = _read_fields(head, lines, request=False)
    if len(lines) != came:
        head.passes_whole = False
    if minor == 0:
        lines[0] = b"HTTP/1.1" + lines[0][8:]
    _frame_response(head, method, length, chunked)
    return head


def _frame_response(head: ResponseHead, method: int, length: int | None, chunked: bool) -> None:
    """Where the body ends, in the order of RFC 9112 6.3."""
    status = head.status
    if status < 200 or status == 204:
        head.length = 0
        if length is not None or chunked:
            head.drop_framing()  # RFC 9110 8.6 and RFC 9112 6.1 forbid both here; some servers send them
    elif method == HEAD_METHOD or status == 304:
        head.length = 0
    elif chunked:
        head.length = CHUNKED
    elif length is not None:
        head.length = length
    else:
        head.length = UNTIL_CLOSE
        head.keep_alive = False


def _options(value: bytes) -> list[bytes]:
    """The options of a Connection field, lower case."""
    if value == b" keep-alive":  # the usual one needs no taking apart
        return [b"keep-alive"]
    return [option.strip(b" \t") for option in value.lower().split(b",")]


def _drop_nominated(lines: list[bytes], options: list[bytes], dropped: list[int]) -> None:
    """Add the lines that Connection names to `dropped` (RFC 9110 7.6.1), but for those that frame the message.

    A client that nominates Content-Length would otherwise change what the endpoint believes the body to be.
    """
    names = [option for option in options if option not in _PLAIN_OPTIONS]
    if not names:
        return
    for at in range(1, len(lines)):
        name = lines[at].partition(b":")[0].lower()
        if name in names and at not in dropped and classify(name) not in _UNSAFE_TO_DROP:
            dropped.append(at)
    dropped.sort()


def _content_length(value: bytes, earlier: int | None) -> int:
    value = value.strip(b" \t")
    if earlier is not None or not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise ProtocolError("Content-Length is repeated or not a plain number")
    return int(value)


def _transfer_coding(value: bytes, earlier: bytes | None) -> bytes:
    value = value.strip(b" \t").lower()
    if earlier is not None:
        raise ProtocolError("Transfer-Encoding is repeated")
    if value != b"chunked":
        codings = [coding.strip(b" \t") for coding in value.split(b",")]
        # RFC 9112 6.1 and 6.3: chunked stands last, once and bare, or the end of the body cannot be told (400);
        # another coding before it is one that is not understood (501).
        malformed = any(coding.startswith(b"chunked") for coding in codings[:-1]) or any(
            not coding or coding.translate(None, _CODING) or coding.startswith(b"chunked;")
            for coding in codings
        )
        raise ProtocolError("only the transfer coding chunked is served here", 400 if malformed else 501)
    return value
