"""The scan that the data path calls says what `head` says, of any bytes, cut anywhere.

In pure Python they are one. In the compiled build this is what lets `scan.pyx` have opinions of its own: whatever it
takes itself it reads as its twin does, and renders to the same bytes.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from property.test_head_splits import METHOD, REQUEST_LINES, STATUS_LINES, described, heads, outcome

from sidecar.http1 import RequestHead, ResponseHead, head, scan
from sidecar.model.stats import METHODS

COMPILED = not scan.__file__.endswith(".py")

thorough = settings(max_examples=600, deadline=None, derandomize=True)

# What most traffic consists of, and so what the scan is to take itself.
USUAL_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nAccept: */*\r\nhost:  b.example:8080 \r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"PUT /\xc3\xa4 HTTP/1.1\r\nConnection: Keep-Alive\r\nHost: a_b\r\ncontent-length:\t12\t\r\nKeep-Alive: 5\r\n\r\n",
    b"PATCH / HTTP/1.1\r\nHost: a:65535\r\nTransfer-Encoding: chunked\r\nProxy-Connection: x\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nX-Tab: a\tb\r\nHTTP2-Settings: x\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nX: " + b"long " * 40 + b"\xff\r\n\r\n",
)
USUAL_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nKeep-Alive: timeout=5\r\nconnection: Close\r\nB: c\r\n\r\n",
    b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nHost: of no meaning here, and twice\r\nHost:\r\n\r\n",
    b"HTTP/1.1 503\r\nRetry-After: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\n\r\n",
)
# Each has one thing that is the twin's to judge.
UNUSUAL = (
    b"Host: a\r\nHost: a",
    b"Host: [::1]:80",
    b"Host: a:65536",
    b"Host: a:",
    b"Host: a:1:2",
    b"Host: " + b"a" * 256,
    b"Host:",
    b"X: y",
    b"Host: a\r\nContent-Length: 1\r\nContent-Length: 1",
    b"Host: a\r\nContent-Length: 01",
    b"Host: a\r\nContent-Length: +1",
    b"Host: a\r\nContent-Length:",
    b"Host: a\r\nContent-Length: 1234567890123456789",
    b"Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Host: a\r\nTransfer-Encoding:  chunked",
    b"Host: a\r\nTransfer-Encoding: Chunked",
    b"Host: a\r\nTransfer-Encoding: gzip",
    b"Host: a\r\nConnection: close, x-a\r\nX-A: 1",
    b"Host: a\r\nConnection: close\r\nConnection: keep-alive",
    b"Host: a\r\nConnection:",
    b"Host: a\r\n" + b"Keep-Alive: 1\r\n" * 4 + b"Connection: close",
    b"Host: a\r\nExpect: 100-continue",
    b"Host: a\r\nUpgrade: b\r\nConnection: upgrade",
    b"Host: a\r\nTE: trailers",
    b"Host: a\r\nTrailer: x",
    b"Host: a\r\nMax-Forwards: 0",
    b"Host: a\r\nContent_Length: 1",
    b"Host: a\r\nTransfer_Encoding: 1",
    b"Host: a\r\n folded: 1",
    b"Host: a\r\nA : 1",
    b"Host: a\r\n: 1",
    b"Host: a\r\nA: \x7f",
    b"Host: a\r\nA: 1234567\x0012345678",
    b"Host: a\r\nA: 12345678\x1f",
    b"Host: a\r\nA: b\nC: d",
    b"Host: a\r\nA: b\rC: d",
    b"Host: a\r\n" + b"A: b\r\n" * 254 + b"C: d",
    b"Host: a\r\n" + b"A: b\r\n" * 255 + b"C: d",
)
OF_ONE_HOP = (b"connection", b"http2-settings", b"keep-alive", b"proxy-connection")
FIRST_LINES = (
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.0",
    b"GET http://a/ HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"GE / HTTP/1.1",
    b"GETS / HTTP/1.1",
    b"GET /\t HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"GET  / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b"GET /\x7f HTTP/1.1",
)


def of_responses(method: int, module: Any) -> Callable[[bytes, int], RequestHead | ResponseHead | None]:
    """A module's scan of a response to `method`."""
    return lambda data, start: module.scan_response(data, start, method)


def same(wire: bytes, method: int = 0) -> None:
    """Both scans say the same of all beginnings of `wire`, at another place, and with something behind it."""
    for ends in ([len(wire)], range(len(wire) + 1) if len(wire) < 400 else [0]):
        assert outcome(scan.scan_request, wire, ends) == outcome(head.scan_request, wire, ends)
        theirs = outcome(of_responses(method, head), wire, ends)
        assert outcome(of_responses(method, scan), wire, ends) == theirs
    for limit in (len(wire) - 1, len(wire)):
        for module in (scan, head):
            if limit > 0:
                outcome(lambda data, at, m=module, n=limit: m.scan_request(data, at, n), wire, [len(wire)])
        mine, twins = (
            outcome(lambda data, at, m=module, n=limit: m.scan_request(data, at, n), wire, [len(wire)])
            for module in (scan, head)
        )
        assert mine == twins
    behind = b"x\r\n\r\n" + wire + b"GET / HTTP/1.1\r\n\r\n"
    mine, twins = (
        outcome(lambda data, _at, m=module: m.scan_request(data, 5), behind, [len(behind)])
        for module in (scan, head)
    )
    assert mine == twins


@pytest.mark.parametrize("wire", [*USUAL_REQUESTS, *USUAL_RESPONSES])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_usual(wire: bytes, method: str) -> None:
    same(wire, METHODS.index(method))


@pytest.mark.parametrize("fields", UNUSUAL)
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"HTTP/1.1 200 OK"])
def test_the_unusual(line: bytes, fields: bytes) -> None:
    same(line + b"\r\n" + fields + b"\r\n\r\n")


@pytest.mark.parametrize("line", FIRST_LINES)
def test_first_lines(line: bytes) -> None:
    same(line + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "code", ["100", "101", "199", "200", "204", "299", "304", "599", "600", "099", "2000", "20"]
)
@pytest.mark.parametrize("framing", [b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_statuses(code: str, framing: bytes) -> None:
    same(b"HTTP/1.1 " + code.encode() + b" x\r\n" + framing + b"\r\n")


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_everywhere(byte: int) -> None:
    """One strange byte in each place of a head: method, target, version, name, value, line end."""
    for wire in (USUAL_REQUESTS[1], USUAL_RESPONSES[0]):
        for at in range(len(wire)):
            changed = wire[:at] + bytes([byte]) + wire[at + 1 :]
            mine, twins = (outcome(module.scan_request, changed, [len(changed)]) for module in (scan, head))
            assert mine == twins
            mine, twins = (
                outcome(of_responses(0, module), changed, [len(changed)]) for module in (scan, head)
            )
            assert mine == twins


@thorough
@given(heads(REQUEST_LINES), METHOD)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 0)
def test_requests(wire: bytes, method: int) -> None:
    same(wire, method)


@thorough
@given(heads(STATUS_LINES), METHOD)
def test_responses(wire: bytes, method: int) -> None:
    same(wire, method)


@pytest.mark.parametrize("wire", USUAL_REQUESTS)
def test_the_usual_request_is_taken_at_once(wire: bytes) -> None:
    """It is what makes the compiled build fast: a head that its scan takes has no lines."""
    found = scan.scan_request(wire)
    assert found is not None
    assert (found._lines is None) == COMPILED


@pytest.mark.parametrize("wire", USUAL_RESPONSES)
def test_the_usual_response_is_taken_at_once(wire: bytes) -> None:
    found = scan.scan_response(wire, 0, 0)
    assert found is not None
    assert (found._lines is None) == COMPILED


@pytest.mark.parametrize("drop", ["drop_coding", "drop_framing"])
@pytest.mark.parametrize("wire", USUAL_RESPONSES)
def test_lines_are_taken_out_of_both(drop: str, wire: bytes) -> None:
    heads = [module.scan_response(wire, 0, 0) for module in (scan, head)]
    for found in heads:
        getattr(found, drop)()
        getattr(found, drop)()
    mine, twins = (described(found) for found in heads if found is not None)
    assert mine == twins


@pytest.mark.parametrize("wire", [wire for wire in USUAL_REQUESTS if scan.scan_request(wire) is not None])
def test_a_field_is_found_in_both(wire: bytes) -> None:
    """By its name in any case, the first of several, without the blanks around its value, or not at all."""
    wire = wire[:-2] + b"X-Ms: \t 1 \r\nx-ms:2\r\nEmpty:\r\nx-msx: 4\r\nX-M: 5\r\n\r\n"
    mine, twins = scan.scan_request(wire), head.scan_request(wire)
    assert mine is not None
    assert twins is not None
    names = [line.partition(b":")[0].lower() for line in wire.split(b"\r\n")[1:-2]]
    for name in (*names, b"x-m", b"x", b"x-msx1", b"", b"none", b"get / http/1.1"):
        if name not in OF_ONE_HOP:  # which the twin has taken out
            assert mine.field(name) == twins.field(name), name
    assert [mine.field(name) for name in (b"x-ms", b"empty", b"x-m")] == [b"1", b"", b"5"]


def read(found: RequestHead) -> tuple[object, ...]:
    """What a head says, but for its lines."""
    return found.method, found.target, found.minor, found.length, found.size, found.keep_alive, found.extras


@pytest.mark.parametrize("wire", USUAL_REQUESTS)
def test_a_field_is_changed_in_both(wire: bytes) -> None:
    """What the compiled scan has found gets lines then; whatever it leaves out does not come back."""
    asked = wire[:-2] + b"X-Ms: 1\r\nx-ms:2\r\nLast: 3\r\n\r\n"
    sent = []
    for module in (scan, head):
        found = module.scan_request(asked)
        assert found is not None
        before = read(found)
        found = found.unpacked()
        assert read(found) == before
        found = found.unpacked()
        places = found.places(b"x-ms")
        assert [found.field(b"x-ms"), len(places)] == [b"1", 2]
        found.put(places[0], b"17")
        found.put(places[1], b"18")
        assert found.places(b"none") == []
        sent.append(found.render(b"e:80", b"body"))
    assert sent[0] == sent[1]
    assert sent[0].endswith(b"\r\nX-Ms: 17\r\nx-ms: 18\r\nLast: 3\r\n\r\nbody")
