"""Request and response heads: one strict scan (RFC 9112 sections 2 to 6), and the head that goes on.

`scan_request` and `scan_response` look at the bytes from `start` and return a head, None when its end has
not come yet, or raise `ProtocolError`. A head keeps the lines it came in: `render` joins them again with
the few lines that belong to one hop left out or made anew (`hop`), so names keep their case, order and
duplicates stay, and a target in origin-form is never touched.

What is wrong with a head is found in one order, however its bytes are split: at the first byte, at the end of
the first line, at the first bare CR or LF, at a line too many, at the limit, and the rest once the blank line has come.
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
    LOOKALIKE,
    MAX_LENGTH_DIGITS,
    ORDINARY,
    TOKEN,
    TRANSFER_ENCODING,
    classify,
    members,
)
from sidecar.http1.hop import drop_nominated, read_request_extras, read_response_extras
from sidecar.http1.message import CHUNKED, HEAD_METHOD, UNTIL_CLOSE, RequestHead, ResponseHead
from sidecar.http1.target import is_authority, origin_form, same_authority
from sidecar.model.stats import METHODS

__all__ = [
    "MAX_HEAD",
    "MAX_LINES",
    "scan_request",
    "scan_response",
    "too_large",
]

MAX_HEAD = 65536  # bytes, where the caller has no limit of its own (behaviour.md)
MAX_LINES = 256  # header lines in one head (behaviour.md; Apache allows 100, Envoy 100, nginx by bytes alone)

_METHODS = {name.encode(): index for index, name in enumerate(METHODS[:-1])}
_OTHER_METHOD = len(METHODS) - 1
_SLASH = 0x2F
_ZERO = 0x30
_CONNECT = METHODS.index("CONNECT")
_OPTIONS = METHODS.index("OPTIONS")

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?")
# What nearly every endpoint sends, so that it costs one look-up.
_USUAL_STATUS_LINES = {
    b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()): status.value
    for status in HTTPStatus
    if status.value < 600
}
_ANY_VERSION = re.compile(rb"HTTP/[0-9](?:\.[0-9])?")
_CODING = TOKEN + b'; ="'  # a transfer coding with its parameters, by its characters (RFC 9112 7)
_BAD_BYTES = "a control character, a bare CR or a bare LF in the head"


def scan_request(data: bytes, start: int = 0, limit: int = MAX_HEAD) -> RequestHead | None:
    """Scan the request head that begins at `start`; None while its blank line has not come.

    limit: bytes of a head, its blank line included.
    Raises ProtocolError with the status it deserves: 400, 414 or 431 (too large), 501 (a transfer coding or
    method that is not served), 505 (another version).
    """
    if len(data) > start and data[start] not in TOKEN:
        raise ProtocolError("the first byte is not the start of an HTTP request")
    end = data.find(b"\r\n\r\n", start, start + limit)
    if end < 0:
        line_end = data.find(b"\r\n", start, start + limit)
        if line_end >= 0:  # another protocol's client need not wait for a time-out to hear that this is HTTP
            _read_request_line(data[start:line_end])
        _refuse_early(data, start, start + limit)
        if len(data) - start > limit:
            raise too_large(data, start, limit)
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
    if minor == 0:
        lines[0] = b"%b %b HTTP/1.1" % (name, target)  # a proxy speaks its own version (RFC 9112 2.3)
    if target[0] != _SLASH and target != b"*":
        host = _settle_target(head, lines, host)
        lines[0] = b"%b %b HTTP/1.1" % (name, head.target)
    if not host:
        if minor:
            raise ProtocolError("Host is missing")
        lines.insert(1, b"Host: ")
        host = 1
    head._host = host
    return head


def too_large(data: bytes, at: int, limit: int) -> ProtocolError:
    """What to raise when the head at `at` does not end within `limit` bytes.

    414 when the request line alone is too long (RFC 9110 15.5.15), 431 when the head is (RFC 6585 5).
    """
    if data.find(b"\r\n", at, at + limit) >= 0:
        return ProtocolError("the request head is too large", 431, Reason.TOO_LARGE)
    return ProtocolError("the request line is too long", 414, Reason.TOO_LARGE)


def _read_request_line(line: bytes) -> tuple[bytes, bytes, int, int]:
    """Method, target, index of the method, minor version (RFC 9112 section 3)."""
    if len(line.translate(None, CONTROLS)) != len(line):
        raise ProtocolError(_BAD_BYTES)
    try:
        name, target, version = line.split(b" ")
    except ValueError:
        raise ProtocolError("the request line is not method, target and version") from None
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
    if b"\t" in target:  # what the controls leave of the bytes that no target may hold
        raise ProtocolError("the request target holds a tab")
    if target[:1] != b"/" and (target != b"*" or method != _OPTIONS):
        origin_form(target, options=False)  # for its refusal
    return name, target, method, minor


def _settle_target(head: RequestHead, lines: list[bytes], host: int) -> int:
    """Turn absolute-form into origin-form; Host has to agree. Gives where Host stands (0: nowhere)."""
    head.target, authority, scheme = origin_form(head.target, options=head.method == _OPTIONS)
    if host:
        if not same_authority(authority, lines[host].partition(b":")[2].strip(b" \t"), scheme):
            raise ProtocolError("the request target and Host name different authorities")
    elif not head.minor:  # HTTP/1.0 had no Host; the target says it
        lines.insert(1, b"Host: " + authority)
        return 1
    return host


def _check_lines(data: bytes, start: int, end: int, ends: int) -> None:
    """Refuse control characters (a bare CR or LF among them) and too many lines. ends: line ends in between."""
    if ends > MAX_LINES:
        _refuse_early(data, start, end + 2)
    block = data[start:end]
    if len(block.translate(None, CONTROLS)) != len(block) - 2 * ends:
        raise ProtocolError(_BAD_BYTES)


def _refuse_early(data: bytes, start: int, stop: int) -> None:
    """Refuse an unfinished head that can no longer become a valid one, instead of waiting for its end.

    What comes behind the line that is one too many does not count, as nobody would have waited for it.
    """
    pairs = data.count(b"\r\n", start, stop)
    most = MAX_LINES + 2  # the first line, and one too many
    if pairs >= most:
        stop = start
        for _ in range(most):
            stop = data.find(b"\r\n", stop) + 2
        pairs = most
    pending = data[start:stop].endswith(b"\r")  # its LF may be on the way
    if data.count(b"\n", start, stop) != pairs or data.count(b"\r", start, stop) - pending != pairs:
        raise ProtocolError(_BAD_BYTES)
    if pairs == most:
        raise ProtocolError(f"more than {MAX_LINES} header lines", 431, Reason.TOO_LARGE)


def _read_fields(
    head: RequestHead | ResponseHead, lines: list[bytes], *, request: bool
) -> tuple[int | None, bool, int]:
    """What the header fields say: Content-Length, whether chunked, and where Host stands (0: nowhere).

    Sets what else they say in `head`, and takes the lines of this hop out of `lines` or makes them anew. A Host
    in a response means nothing.
    """
    length = coding = None
    host = 0
    dropped: list[int] = []
    options: list[bytes] = []
    rare: list[int] | tuple[()] = ()
    for at in range(1, len(lines)):
        name, colon, value = lines[at].partition(b":")
        kind = KINDS.get(name)
        if kind is None:
            kind = classify(name)
        if not colon or kind < 0:
            raise ProtocolError("a header line is not a name, a colon and a value")
        if kind == ORDINARY:
            continue
        if kind == HOST:
            if not request:
                continue
            if host or not is_authority(value.strip(b" \t")):
                raise ProtocolError("Host is repeated or not a host and port")
            host = at
        elif kind == CONTENT_LENGTH:
            value = value.strip(b" \t")
            length = _content_length(value, length)
            if value[0] == _ZERO and len(value) > 1:  # who guesses a base by that would count otherwise
                lines[at] = b"%b: %d" % (name, length)
                if isinstance(head, ResponseHead):
                    head.passes_whole = False
        elif kind == CONNECTION:
            options += _options(value)
            dropped.append(at)
        elif kind == TRANSFER_ENCODING:
            coding = _transfer_coding(value, coding)
            lines[at] = name + b": chunked"  # in the one spelling that nobody can miss
        elif kind == DROPPED:
            dropped.append(at)
        elif kind == LOOKALIKE:
            if request:
                raise ProtocolError("a name that some servers read as Content-Length or Transfer-Encoding")
        else:
            rare = [*rare, at]
    if coding is not None and (length is not None or head.minor == 0):
        raise ProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
    if options:
        if b"close" in options:
            head.keep_alive = False
        elif head.minor == 0 and b"keep-alive" in options:
            head.keep_alive = True
        drop_nominated(lines, options, dropped)
    if rare:
        if isinstance(head, RequestHead):
            bodiless = not length and coding is None
            read_request_extras(head, lines, rare, options, dropped, bodiless=bodiless)
        else:
            read_response_extras(head, lines, rare, options, dropped)
    if len(dropped) > 1:
        dropped = sorted({*dropped}, reverse=True)  # one line may go for two reasons
    for at in dropped:
        del lines[at]
        if at < host:
            host -= 1
    return length, coding is not None, host


def scan_response(data: bytes, start: int, method: int, limit: int = MAX_HEAD) -> ResponseHead | None:
    """Scan the response head that begins at `start`; None while its blank line has not come.

    method: of the request it answers, index into `METHODS`; a HEAD's response has no body.
    limit: bytes of a head, its blank line included.
    Raises ProtocolError for anything malformed, ambiguous or too large.
    """
    end = data.find(b"\r\n\r\n", start, start + limit)
    if end < 0:
        _check_protocol(data, start)
        _refuse_early(data, start, start + limit)
        if len(data) - start > limit:
            raise ProtocolError("the response head is too large")
        return None
    lines = data[start:end].split(b"\r\n")
    status = _USUAL_STATUS_LINES.get(lines[0])
    minor = 1
    if status is None:
        _check_protocol(data, start)
    _check_lines(data, start, end, len(lines) - 1)
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


def _check_protocol(data: bytes, start: int) -> None:
    """Refuse what does not begin as HTTP/1, as soon as that shows."""
    if not b"HTTP/1.".startswith(data[start : start + 7]):
        raise ProtocolError("the response does not start with HTTP/1.x")


def _frame_response(head: ResponseHead, method: int, length: int | None, chunked: bool) -> None:
    """Where the body ends, in the order of RFC 9112 6.3."""
    status = head.status
    if status < 200 or status == 204:
        head.length = 0
        if length is not None or chunked:
            head.drop_framing()  # RFC 9110 8.6 and RFC 9112 6.1 forbid both here; some servers send them
            if (length or chunked) and status < 200:
                raise ProtocolError("an interim response that announces a body")
            if length or chunked:
                head.keep_alive = False  # and perhaps the body too, which would answer the next request
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
    return members(value)


def _content_length(value: bytes, earlier: int | None) -> int:
    if earlier is not None or not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise ProtocolError("Content-Length is repeated or not a plain number")
    return int(value)


def _transfer_coding(value: bytes, earlier: bytes | None) -> bytes:
    # Spaces, and no tab: it is allowed, but there are readers who see another coding then.
    value = value.strip(b" ").lower()
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
