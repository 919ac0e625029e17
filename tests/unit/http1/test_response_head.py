"""Response heads: the status line, where the body ends, and what goes to the client."""

import pytest

from sidecar.errors import ProtocolError
from sidecar.http1 import ResponseHead, scan_response
from sidecar.http1.head import UNTIL_CLOSE
from sidecar.model.stats import METHODS

GET = METHODS.index("GET")
HEAD = METHODS.index("HEAD")


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", method: int = GET) -> ResponseHead:
    """The head of these lines, complete and valid."""
    data = b"\r\n".join((line, *fields)) + b"\r\n\r\n"
    head = scan_response(data, 0, method)
    assert head is not None
    assert head.size == len(data)
    return head


# The status line (RFC 9112 4)


@pytest.mark.parametrize(
    ("line", "status", "minor"),
    [
        (b"HTTP/1.1 200 OK", 200, 1),
        (b"HTTP/1.1 404 Not  Found\t\xe4", 404, 1),
        (b"HTTP/1.1 200 ", 200, 1),
        (b"HTTP/1.1 200", 200, 1),
        (b"HTTP/1.0 599 x", 599, 0),
        (b"HTTP/1.1 100 Continue", 100, 1),
    ],
)
def test_status_lines(line: bytes, status: int, minor: int) -> None:
    head = response(line=line)
    assert (head.status, head.minor) == (status, minor)
    assert head.render(b"").startswith(b"HTTP/1.1" + line[8:] + b"\r\n"), "a proxy speaks its own version"
    assert head.passes_whole is (minor == 1)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 abc OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/1.1200 OK",
        b"XTTP/1.1 200 OK",
        b"",
    ],
)
def test_what_is_no_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"status line|does not start with HTTP"):
        response(line=line)


@pytest.mark.parametrize("fields", [(b"Content-Length: 5",), (b"Transfer-Encoding: chunked",), ()])
@pytest.mark.parametrize(
    ("line", "method"),
    [
        (b"HTTP/1.1 200 OK", HEAD),
        (b"HTTP/1.1 304 Not Modified", GET),
    ],
)
def test_responses_without_a_body_whatever_they_say(
    fields: tuple[bytes, ...], line: bytes, method: int
) -> None:
    head = response(*fields, line=line, method=method)
    assert head.length == 0
    assert head.keep_alive


@pytest.mark.parametrize("fields", [(b"Content-Length: 5",), (b"Transfer-Encoding: chunked",)])
def test_a_body_that_is_announced_where_there_is_none_never_answers_the_next_request(
    fields: tuple[bytes, ...],
) -> None:
    head = response(*fields, line=b"HTTP/1.1 204 No Content")
    assert (head.length, head.keep_alive) == (0, False)
    with pytest.raises(ProtocolError, match="interim response that announces a body"):
        response(*fields, line=b"HTTP/1.1 103 Early Hints")


@pytest.mark.parametrize(
    ("line", "framing"),
    [
        (b"HTTP/1.1 204 No Content", b"content-length: 5"),
        (b"HTTP/1.1 204 No Content", b"Content-Length: 0"),
        (b"HTTP/1.1 204 No Content", b"Transfer-Encoding: chunked"),
        (b"HTTP/1.1 103 Early Hints", b"Content-Length: 0"),
    ],
)
def test_framing_that_may_not_stand_there_does_not_go_on(line: bytes, framing: bytes) -> None:
    """RFC 9110 8.6, RFC 9112 6.1: a client that believed it would wait for a body."""
    head = response(b"A: 1", framing, b"B: 2", line=line)
    assert not head.passes_whole
    assert head.render(b"") == line + b"\r\nA: 1\r\nB: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "method"), [(b"HTTP/1.1 200 OK", HEAD), (b"HTTP/1.1 304 Not Modified", GET)]
)
def test_framing_that_describes_the_absent_body_goes_on(line: bytes, method: int) -> None:
    """RFC 9110 8.6: what a GET would have got."""
    head = response(b"Content-Length: 5", line=line, method=method)
    assert head.passes_whole
    assert head.render(b"") == line + b"\r\nContent-Length: 5\r\n\r\n"


def test_a_response_without_a_length_lasts_until_close() -> None:
    head = response(b"Connection: keep-alive")
    assert head.length == UNTIL_CLOSE
    assert not head.keep_alive


def test_a_response_passes_whole_unless_a_line_of_it_is_of_one_hop() -> None:
    assert response(b"Content-Length: 0", b"X: 1").passes_whole
    assert not response(b"Content-Length: 0", b"Connection: keep-alive").passes_whole
    assert not response(b"Content-Length: 0", b"keep-alive: timeout=5").passes_whole


def test_render_puts_our_lines_last_and_the_body_behind() -> None:
    head = response(b"A: 1", b"Content-Length: 5")
    assert head.render(b"Connection: close\r\n", b"hello") == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    )
    assert head.render(b"") == b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\n\r\n"


def test_the_framing_can_be_dropped() -> None:
    head = response(b"A: 1", b"TRANSFER-Encoding: chunked", b"B: 2")
    head.drop_framing()
    assert not head.passes_whole
    assert head.render(b"") == b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n"
