"""HTTP/1.1 by the letter of RFC 9112 and RFC 9110: what a row of bytes holds, and how sure one can be of it.

Written from the grammar, so that it can judge the proxy: it shares no line with the proxy's own scanner and is
slow and plain where that one is quick. Where the RFC lets a recipient choose, the answer is a verdict in between.
"""

import re
from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Message", "Verdict", "read_requests", "read_responses"]


class Verdict(Enum):
    """How sure one can be of a message.

    SOUND: to be served. ODD: its end is certain, but it may be refused (another version, a target that denies its
    Host). AMBIGUOUS: it may be served too, but never be sent on as it is, since others may read it otherwise.
    REFUSED: to be refused. INCOMPLETE: more has to come.
    """

    SOUND = "sound"
    ODD = "odd"
    AMBIGUOUS = "ambiguous"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Message:
    """One message. name: the request's target or the response's status. method: of a request that is fine so far.

    head: offset behind its head; end: offset behind it all, or where reading stopped.
    in_body: the head was fine, what is wrong or missing is the body. persists: another may follow.
    fields: (name in lower case, value) in order. body: decoded. trailers: their names in lower case.
    """

    name: bytes
    verdict: Verdict
    head: int
    end: int
    in_body: bool = False
    persists: bool = True
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    trailers: tuple[bytes, ...] = ()
    method: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name."""
        return [value for key, value in self.fields if key == name]


@dataclass(frozen=True, slots=True)
class _Framing:
    """Where a body ends: chunked, or `length` bytes, or (None) neither is said."""

    verdict: Verdict
    chunked: bool = False
    length: int | None = None


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_FIELD = re.compile(rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN)
# The target by its bytes alone: which of them a URI may hold is a matter of its own, not of framing.
_REQUEST_LINE = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([0-9]{3})( ?)[\t -~\x80-\xff]*")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)
_CODING = re.compile(rb"%b(?:[ \t]*;[ \t]*%b[ \t]*=[ \t]*(?:%b|%b))*" % (_TOKEN, _TOKEN, _TOKEN, _QUOTED))
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:%b)*" % _EXTENSION)
# What is read as an extension by who ignores them all (7.1.1); refusing it is the grammar's way.
_LOOSE_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*;[\t -~\x80-\xff]*")
_LARGE = 18  # digits: more are fine by the grammar, and more than anyone has to count with
_LONG_LINE, _LONG_TRAILERS = 1000, 8000  # bytes from which on a limit of the recipient may be met
_SEVERITY = list(Verdict)


def read_requests(data: bytes) -> list[Message]:
    """The requests in `data`, up to the first that is not whole or not sure, or that ends the connection."""
    found: list[Message] = []
    at = 0
    while True:
        while data.startswith(b"\r\n", at):  # 2.2: empty lines before a request line
            at += 2
        if at == len(data):
            return found
        message = _request(data, at)
        found.append(message)
        if not message.persists or message.verdict not in (Verdict.SOUND, Verdict.ODD):
            return found
        at = message.end


def read_responses(data: bytes, *methods: bytes, closed: bool = False) -> list[Message]:
    """The responses in `data` to requests of these methods, interim ones among them.

    closed: the connection has ended behind it, which is what ends a body without framing. Bytes behind the last
    response that was asked for are one more message, REFUSED.
    """
    found: list[Message] = []
    at = 0
    asked = list(methods)
    while at < len(data):
        if not asked:
            found.append(Message(b"", Verdict.REFUSED, at, at))
            return found
        message = _response(data, at, asked[0], closed)
        found.append(message)
        if message.verdict in (Verdict.REFUSED, Verdict.INCOMPLETE):
            return found
        at = message.end
        if not message.name.startswith(b"1"):
            asked.pop(0)
    return found


def _request(data: bytes, at: int) -> Message:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return Message(b"", Verdict.INCOMPLETE, at, len(data))
    first, *lines = data[at:end].split(b"\r\n")
    at = end + 4
    match, fields = _REQUEST_LINE.fullmatch(first), _fields(lines)
    if match is None or fields is None or match[3] != b"1":
        return Message(b"", Verdict.REFUSED, at, at)
    method, target, _, minor = match.groups()
    values = Message(target, Verdict.SOUND, at, at, fields=fields).values
    framing = _framing(values(b"content-length"), values(b"transfer-encoding"), minor)
    verdicts = [framing.verdict, _route(method, target, minor, values(b"host")), _likeness(lines)]
    if framing.chunked is False and values(b"transfer-encoding") and framing.verdict is not Verdict.REFUSED:
        verdicts.append(Verdict.REFUSED)  # 6.3: chunked is not the final coding of a request
    verdict = _worst(verdicts)
    persists = _persists(values(b"connection"), minor)
    if verdict is Verdict.REFUSED:
        return Message(target, verdict, at, at, persists=persists, fields=fields)
    if framing.chunked:
        return replace(_chunked(data, target, verdict, at, persists, fields), method=method)
    end = at + (framing.length or 0)
    if end > len(data):
        return Message(target, _short(verdict), at, len(data), True, persists, fields, method=method)
    return Message(
        target, verdict, at, end, persists=persists, fields=fields, body=data[at:end], method=method
    )


def _response(data: bytes, at: int, method: bytes, closed: bool) -> Message:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return Message(b"", Verdict.INCOMPLETE, at, len(data))
    first, *lines = data[at:end].split(b"\r\n")
    at = end + 4
    match, fields = _STATUS_LINE.fullmatch(first), _fields(lines)
    if match is None or fields is None or match[1] != b"1" or not b"100" <= match[3] < b"600":
        return Message(b"", Verdict.REFUSED, at, at)
    _, minor, status, space = match.groups()
    values = Message(status, Verdict.SOUND, at, at, fields=fields).values
    framing = _framing(values(b"content-length"), values(b"transfer-encoding"), minor)
    verdict = _worst(
        [framing.verdict, Verdict.SOUND if space and minor in b"01" else Verdict.ODD, _likeness(lines)]
    )
    persists = _persists(values(b"connection"), minor)
    if verdict is Verdict.REFUSED:
        return Message(status, verdict, at, at, persists=persists, fields=fields)
    if status < b"200" or status == b"204":  # these have neither body nor framing fields (8.6 of RFC 9110)
        verdict = _worst([verdict, Verdict.AMBIGUOUS if framing.chunked or framing.length else Verdict.SOUND])
        return Message(status, verdict, at, at, persists=persists, fields=fields)
    if method == b"HEAD" or status == b"304":
        return Message(status, verdict, at, at, persists=persists, fields=fields)
    if framing.chunked:
        return _chunked(data, status, verdict, at, persists, fields)
    if framing.length is None:
        end = len(data)
        verdict = verdict if closed else _short(verdict)
        return Message(status, verdict, at, end, not closed, False, fields, data[at:end])
    end = at + framing.length
    if end > len(data):
        return Message(status, _short(verdict), at, len(data), True, persists, fields, data[at:])
    return Message(status, verdict, at, end, persists=persists, fields=fields, body=data[at:end])


def _fields(lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...] | None:
    """RFC 9112 5: no blank before the colon, no folding, no control character."""
    matches = [_FIELD.fullmatch(line) for line in lines]
    if not all(matches):
        return None
    return tuple((match[1].lower(), match[2]) for match in matches if match)


def _framing(lengths: list[bytes], codings: list[bytes], minor: bytes) -> _Framing:
    """RFC 9112 6.1 to 6.3."""
    if codings:
        every = [coding.strip(b" \t") for value in codings for coding in _split(value)]
        listed = [coding for coding in every if coding]
        chunked = [coding.lower() == b"chunked" for coding in listed]
        wrong = any(_CODING.fullmatch(coding) is None for coding in listed)
        # 7.1: chunked has no parameters, and it is applied once and last.
        parameters = any(re.match(rb"chunked[ \t]*;", coding, re.IGNORECASE) for coding in listed)
        # 6.1: HTTP/1.0 knows no codings, so that a message of it with one is framed by who knows what.
        if not listed or wrong or parameters or any(chunked[:-1]) or minor == b"0":
            return _Framing(Verdict.REFUSED)
        plain = len(every) == 1 and chunked[-1] and not lengths
        return _Framing(Verdict.SOUND if plain else Verdict.AMBIGUOUS, chunked[-1])
    if not lengths:
        return _Framing(Verdict.SOUND)
    numbers = [number.strip(b" \t") for value in lengths for number in value.split(b",")]
    if not all(re.fullmatch(rb"[0-9]+", number) for number in numbers) or len(set(map(int, numbers))) != 1:
        return _Framing(Verdict.REFUSED)
    if len(numbers) > 1:  # 6.3: equal ones may be taken for one, but only one may go on
        return _Framing(Verdict.AMBIGUOUS, length=int(numbers[0]))
    return _Framing(Verdict.ODD if len(numbers[0]) > _LARGE else Verdict.SOUND, length=int(numbers[0]))


def _likeness(lines: list[bytes]) -> Verdict:
    """What is valid, and yet read otherwise by some: it may be refused.

    Tabs around a coding are white space (RFC 9110 5.6.3), but there are readers who take them for part of it; and
    names with underscores are others, but not to CGI and what is made like it (RFC 3875 4.1.18).
    """
    for line in map(bytes.lower, lines):
        if line.startswith((b"content_length:", b"transfer_encoding:")):
            return Verdict.ODD
        if line.startswith(b"transfer-encoding:") and b"\t" in line:
            return Verdict.ODD
    return Verdict.SOUND


def _split(value: bytes) -> list[bytes]:
    """The elements of a list, a comma inside a quoted string not counted."""
    return re.split(rb',(?=(?:[^"]*"[^"]*")*[^"]*\Z)', value)


def _route(method: bytes, target: bytes, minor: bytes, hosts: list[bytes]) -> Verdict:
    """RFC 9112 3.2: the forms of a target, and exactly one Host."""
    if len(hosts) > 1 or (not hosts and minor != b"0") or not all(map(_HOST.fullmatch, hosts)):
        return Verdict.REFUSED
    if method == b"CONNECT" or minor not in b"01":
        return Verdict.ODD
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return Verdict.SOUND if target.isascii() else Verdict.ODD
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return Verdict.REFUSED
    return Verdict.ODD


def _persists(connections: list[bytes], minor: bytes) -> bool:
    """RFC 9112 9.3."""
    options = {option.strip(b" \t").lower() for value in connections for option in value.split(b",")}
    return b"close" not in options and (minor != b"0" or b"keep-alive" in options)


def _chunked(
    data: bytes,
    name: bytes,
    verdict: Verdict,
    at: int,
    persists: bool,
    fields: tuple[tuple[bytes, bytes], ...],
) -> Message:
    """RFC 9112 7.1."""
    head = at
    pieces: list[bytes] = []

    def stopped(verdict: Verdict) -> Message:
        return Message(name, verdict, head, len(data), True, persists, fields, b"".join(pieces))

    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return stopped(_short(verdict))
        match = _SIZE_LINE.fullmatch(data, at, end)
        if match is None:
            match = _LOOSE_SIZE_LINE.fullmatch(data, at, end)
            verdict = _worst([verdict, Verdict.ODD])
        if match is None:
            return stopped(Verdict.REFUSED)
        if len(match[1]) > 15 or end - at > _LONG_LINE:
            verdict = _worst([verdict, Verdict.ODD])
        size, at = int(match[1], 16), end + 2
        if not size:
            break
        pieces.append(data[at : at + size])
        at += size
        if not b"\r\n".startswith(data[at : at + 2]):
            return stopped(Verdict.REFUSED)
        if at + 2 > len(data):
            return stopped(_short(verdict))
        at += 2
    lines: list[bytes] = []
    trailers_at = at
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return stopped(_short(verdict))
        line, at = data[at:end], end + 2
        if not line:
            break
        lines.append(line)
    trailers = _fields(lines)
    if trailers is None:
        return stopped(Verdict.REFUSED)
    if at - trailers_at > _LONG_TRAILERS:
        verdict = _worst([verdict, Verdict.ODD])
    names = tuple(key for key, _ in trailers)
    return Message(name, verdict, head, at, False, persists, fields, b"".join(pieces), names)


def _short(verdict: Verdict) -> Verdict:
    """The verdict on what has not come whole: it may be refused before it has, where that is a choice."""
    return Verdict.INCOMPLETE if verdict in (Verdict.SOUND, Verdict.ODD) else verdict


def _worst(verdicts: list[Verdict]) -> Verdict:
    return max(verdicts, key=_SEVERITY.index)
