"""Heads: any split of the bytes gives the same head or the same refusal.

It is `head`'s scan that is held here; test_scan_twin.py holds the compiled build's against it. The scanners are
driven as the data path drives them: after each piece, over all that has come so far.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import ProtocolError
from sidecar.http1 import RequestHead, ResponseHead
from sidecar.http1 import head as head_module
from sidecar.http1.head import scan_request, scan_response
from sidecar.model.stats import METHODS

quick = settings(max_examples=250, deadline=None, derandomize=True)

Scan = Callable[[bytes, int], RequestHead | ResponseHead | None]

PLAIN_FIELDS = (
    b"X-A: 1",
    b"x-a:",
    b"Connection: close, X-A",
    b"connection: keep-alive",
    b"Connection: content-length,host,,transfer-encoding",
    b"Keep-Alive: timeout=5",
    b"TE: trailers",
    b"Upgrade: a, h2c",
    b"connection: upgrade",
    b"Trailer: X-A",
    b"Max-Forwards: 1",
    b"Expect: 100-continue",
    b"Cookie: \xe4=\tb",
)
HOSTS = (b"Host: a", b"hOST:\tb.example:80 ", b"host:")
FRAMINGS = (b"Content-Length: 5", b"content-length:0", b"Transfer-Encoding: chunked")
ODD_FIELDS = (*HOSTS, *FRAMINGS, b"Transfer-Encoding: gzip", b"no colon", b" folded", b"a : b")
REQUEST_LINES = (
    *[b"GET / HTTP/1.1"] * 5,
    b"POST /a?b#c HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
    b"PROPFIND http://a/b HTTP/1.1",
    b"GET / HTTP/2.0",
    b"CONNECT a:1 HTTP/1.1",
    b"GET /",
    b"(GET / HTTP/1.1",
)
STATUS_LINES = (
    *[b"HTTP/1.1 200 OK"] * 5,
    b"HTTP/1.0 404",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 \xe4",
    b"HTTP/1.1 100 Continue",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 600 x",
)
METHOD = st.sampled_from((METHODS.index("GET"), METHODS.index("HEAD")))


@st.composite
def heads(draw: st.DrawFn, first_lines: tuple[bytes, ...]) -> bytes:
    """A head, complete; often valid, often with an odd line, often with some bytes changed."""
    fields = draw(st.lists(st.sampled_from(PLAIN_FIELDS), max_size=4, unique=True))
    fields += [draw(st.sampled_from(HOSTS)), *draw(st.lists(st.sampled_from(FRAMINGS), max_size=1))]
    if draw(st.integers(0, 3)) == 0:
        fields += draw(st.lists(st.sampled_from(ODD_FIELDS), max_size=3))
    lines = [draw(st.sampled_from(first_lines)), *draw(st.permutations(fields))]
    wire = bytearray(b"\r\n".join((*lines, b"", b"")))
    odd = st.sampled_from(
        (b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b":", b" ", b"\0", b"\xff", b"HTTP/3", b"(")
    )
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2, 3)))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 2))] = draw(odd)
    return bytes(wire)


def described(head: RequestHead | ResponseHead) -> dict[str, Any]:
    """Everything a head says, but for how it keeps it."""
    said = {name: getattr(head, name) for name in type(head).__slots__ if not name.startswith("_")}
    said["extras"] = [getattr(head.extras, name) for name in type(head.extras).__slots__]
    if isinstance(head, RequestHead):
        return said | {"kept": head.render(b"", b"body"), "sent": head.render(b"e:80", b"body")}
    return said | {"sent": head.render(b"A: b\r\n", b"body")}


def response_scan(method: int) -> Scan:
    """The scan of a response to `method`."""
    return lambda data, start: scan_response(data, start, method)


def limited(scan: Callable[..., RequestHead | ResponseHead | None], limit: int) -> Scan:
    """The same scan with a limit of so many bytes."""
    return lambda data, start: scan(data, start, limit=limit)


def outcome(scan: Scan, wire: bytes, ends: Iterable[int]) -> object:
    """The head, the refusal, or None: the first that scanning what has come up to each of `ends` gives."""
    try:
        for end in ends:
            head = scan(wire[:end], 0)
            if head is not None:
                return described(head)
    except ProtocolError as error:
        return error.status, error.reason, str(error)
    return None


def agree(scan: Scan, wire: bytes, cuts: list[int]) -> object:
    """Scan whole, cut, byte by byte, and in the middle of other bytes; all must say the same."""
    whole = outcome(scan, wire, [len(wire)])
    assert outcome(scan, wire, [*sorted(cuts), len(wire)]) == whole
    assert outcome(scan, wire, range(len(wire) + 1)) == whole
    assert outcome(lambda data, at: scan(b"0\r\n\r\n" + data, 5), wire, [len(wire)]) == whole
    if isinstance(whole, dict):
        assert outcome(scan, wire + b"\0\n\r\n\r\n", [len(wire) + 6]) == whole, (
            "what follows is not looked at"
        )
    return whole


def small_limits() -> Any:
    """Few lines, so that ordinary examples pass the limit."""
    return mock.patch.object(head_module, "MAX_LINES", 5)


@quick
@given(st.data(), heads(REQUEST_LINES))
@example(None, b"(GET / HTTP/1.1\r\n" + b"a: b\r\n" * 6 + b"\r\n")
@example(None, b"GET / HTTP/2.0\r\n" + b"a: b\r\n" * 6 + b"\r\n")
@example(None, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 6 + b"\n\r\n\r\n")
@example(None, b"GET / HTTP/2.0\n\r\n\r\n")
@example(None, b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n")
def test_requests(data: st.DataObject | None, wire: bytes) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=4)) if data else [1]
    with small_limits():
        said = agree(scan_request, wire, cuts)
        agree(limited(scan_request, 60), wire, cuts)
    if isinstance(said, dict):
        again = scan_request(said["sent"])
        assert again is not None, "what goes on is a request"
        assert (again.method, again.target, again.length) == (said["method"], said["target"], said["length"])
        assert again.size + len(b"body") == len(said["sent"])
        assert again.render(b"e:80", b"body") == said["sent"], "with nothing left to take out"


@quick
@given(st.data(), heads(STATUS_LINES), METHOD)
def test_responses(data: st.DataObject, wire: bytes, method: int) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=4))
    with small_limits():
        said = agree(response_scan(method), wire, cuts)
        agree(limited(partial(scan_response, method=method), 60), wire, cuts)
    if isinstance(said, dict):
        again = scan_response(said["sent"], 0, method)
        assert again is not None, "what goes on is a response"
        assert (again.status, again.length, again.minor) == (said["status"], said["length"], 1)
        assert again.passes_whole, "with nothing left to take out"


@quick
@given(
    st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)),
    st.sampled_from((b"", b"\r\n\r\n")),
)
def test_any_bytes_are_refused_awaited_or_read_but_nothing_else(raw: bytes, end: bytes) -> None:
    for scan in (scan_request, response_scan(0)):
        agree(scan, raw + end, [len(raw) // 2])
