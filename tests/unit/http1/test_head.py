"""Heads (RFC 9112 2 to 6): what requests and responses have in common. Each has a file of its own beside this."""

import pytest

from sidecar.errors import ProtocolError, Reason
from sidecar.http1 import RequestHead, ResponseHead, scan_request, scan_response
from sidecar.http1.head import MAX_LINES
from sidecar.http1.message import CHUNKED, UNTIL_CLOSE
from sidecar.model.stats import METHODS

GET = METHODS.index("GET")


def request(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> RequestHead:
    """The head of these lines, complete and valid. host: its line, empty for none."""
    lines = [line, *([host] if host else []), *fields]
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    head = scan_request(data)
    assert head is not None
    assert head.size == len(data)
    return head


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", method: int = GET) -> ResponseHead:
    """The head of these lines, complete and valid."""
    data = b"\r\n".join((line, *fields)) + b"\r\n\r\n"
    head = scan_response(data, 0, method)
    assert head is not None
    assert head.size == len(data)
    return head


def refused(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> tuple[int, Reason]:
    """Status and reason of a request's refusal."""
    with pytest.raises(ProtocolError) as caught:
        request(*fields, line=line, host=host)
    return caught.value.status, caught.value.reason


BAD = (400, Reason.BAD_REQUEST)


# A head that has not ended


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: a\r\n\r"])
def test_an_unfinished_request_is_awaited(begun: bytes) -> None:
    assert scan_request(begun) is None
    assert scan_request(b"junk\r\n\r\n" + begun, 8) is None


@pytest.mark.parametrize("begun", [b"\x16\x03\x01", b" ", b"\n", b"\r", b"(", b"\xff", b"\0"])
def test_a_first_byte_that_begins_no_request_is_refused_at_once(begun: bytes) -> None:
    with pytest.raises(ProtocolError, match="first byte"):
        scan_request(begun)


@pytest.mark.parametrize("lines", [b"\n", b"\r\nA: b\n\r\n", b"\rA", b"\r\nA: b\r\r", b"\r\r", b"\n\r"])
def test_a_bare_line_end_is_refused_before_the_head_ends(lines: bytes) -> None:
    with pytest.raises(ProtocolError, match="bare CR or a bare LF"):
        scan_request(b"GET / HTTP/1.1" + lines)
    with pytest.raises(ProtocolError, match="bare CR or a bare LF"):
        scan_response(b"HTTP/1.1 200 OK" + lines, 0, GET)


@pytest.mark.parametrize(
    "begun", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r"]
)
def test_an_unfinished_response_is_awaited(begun: bytes) -> None:
    assert scan_response(begun, 0, GET) is None
    assert scan_response(b"junk" + begun, 4, GET) is None


@pytest.mark.parametrize("begun", [b"X", b"\r\n", b"HTTQ", b"HTTP/2", b"http/1.1 2", b"SSH-2.0-x\r\n"])
def test_what_begins_no_response_is_refused_at_once(begun: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not start"):
        scan_response(begun, 0, GET)


def test_the_scan_begins_where_it_is_told_and_stops_at_the_blank_line() -> None:
    one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"GET /2 HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\n"
    data = one + two + b"\0\n junk"
    first = scan_request(data)
    assert first is not None
    assert (first.target, first.size) == (b"/1", len(one))
    second = scan_request(data, first.size)
    assert second is not None
    assert (second.target, second.size, second.length) == (b"/2", len(two), 1)
    answer = scan_response(data.replace(b"GET /2 HTTP/1.1", b"HTTP/1.1 201 \xe4"), len(one), GET)
    assert answer is not None
    assert (answer.status, answer.size, answer.length) == (201, len(two) - 1, 1)


# Header lines


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b": no name",
        b"Name : space before colon",
        b" folded",
        b"\tfolded: x",
        b"N\xe4me: x",
        b"a b: c",
    ],
)
def test_what_is_no_header_line_is_refused(line: bytes) -> None:
    assert refused(line) == BAD
    assert refused(b"A: 1", line) == BAD
    with pytest.raises(ProtocolError, match="header line"):
        response(b"A: 1", line)


@pytest.mark.parametrize(
    "line", [b"a: \0", b"a: b\rc", b"a: b\nc", b"a: \x7f", b"a: \x1b[0m", b"a: b\r", b"\ra: b"]
)
def test_control_characters_are_refused(line: bytes) -> None:
    assert refused(line) == BAD
    with pytest.raises(ProtocolError, match="control character"):
        response(line)


def test_tabs_and_high_bytes_are_values() -> None:
    line = b"a: \t b\tc \xc3\xa4\xff\t "
    assert line in request(line).render(b"")
    assert line in response(line).render(b"")


def test_the_number_of_lines_is_bounded() -> None:
    most = [b"a: b"] * (MAX_LINES - 1)  # Host is one more
    assert request(*most).length == 0
    assert refused(*most, b"a: b") == (431, Reason.TOO_LARGE)
    assert response(*most, b"a: b").status == 200
    with pytest.raises(ProtocolError, match="more than 256 header lines"):
        response(*most, b"a: b", b"a: b")


# Framing (RFC 9112 6)


@pytest.mark.parametrize(
    ("line", "length"),
    [
        (b"Content-Length: 0", 0),
        (b"content-length:5", 5),
        (b"CONTENT-LENGTH: " + b"9" * 18, 10**18 - 1),
        (b"Transfer-Encoding: chunked", CHUNKED),
    ],
)
def test_lengths(line: bytes, length: int) -> None:
    assert request(line).length == length
    assert line in request(line).render(b"")
    assert response(line).length == length


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (b"Content-Length: \t007 ", b"Content-Length: 7"),
        (b"content-length:00", b"content-length: 0"),
        (b"transfer-encoding:ChunKED ", b"transfer-encoding: chunked"),
    ],
)
def test_framing_is_written_so_that_nobody_can_read_it_otherwise(line: bytes, plain: bytes) -> None:
    assert plain + b"\r\n" in request(line).render(b"")
    assert plain + b"\r\n" in response(line).render(b"")
    assert not response(line).passes_whole or b"coding" in line


@pytest.mark.parametrize("name", [b"Content_Length", b"transfer_encoding", b"CONTENT_LENGTH"])
def test_names_that_some_servers_take_for_framing_are_refused(name: bytes) -> None:
    assert refused(name + b": 5") == (400, Reason.BAD_REQUEST)
    assert response(name + b": chunked").length == UNTIL_CLOSE, "a client is no such server"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"1.0",
        b"0x5",
        b"5, 5",
        b"5 5",
        b"5;",
        b"1_0",
        b"\xd9\xa5",
        b"9" * 19,
        b"0" * 18 + b"5",
    ],
)
def test_what_is_no_length_is_refused(value: bytes) -> None:
    assert refused(b"Content-Length: " + value) == BAD
    with pytest.raises(ProtocolError, match="Content-Length"):
        response(b"Content-Length: " + value)


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 5", b"content-length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        (b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"),
    ],
)
def test_framing_that_can_be_read_two_ways_is_refused(fields: tuple[bytes, ...]) -> None:
    assert refused(*fields) == BAD
    with pytest.raises(ProtocolError, match=r"repeated|beside"):
        response(*fields)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("gzip, chunked", 501),
        ("gzip", 501),
        ("identity", 501),
        ("gzip, br, chunked", 501),
        ('x-foo; a="b c"; d=1, chunked', 501),
        ("xchunked", 501),
        ("Xchunked", 501),
        ("g(zip", 400),
        ("gzip@1, chunked", 400),
        ("g\xe4zip", 400),
        ("gzip,, chunked", 400),
        (", chunked", 400),
        ("gzip, chunked, chunked", 400),
        ("gzip, chunked;q=1", 400),
        ("", 400),
        ("chunked, gzip", 400),
        ("chunked, chunked", 400),
        ("chunked;q=1", 400),
        ("chunked,", 400),
    ],
)
def test_transfer_codings_that_are_refused(value: str, status: int) -> None:
    """501 for a coding that is not known (RFC 9112 6.1), 400 for framing that is wrong in itself (6.1, 6.3)."""
    assert refused(b"Transfer-Encoding: " + value.encode("latin-1")) == (status, Reason.BAD_REQUEST)
    with pytest.raises(ProtocolError, match="transfer coding"):
        response(b"Transfer-Encoding: " + value.encode("latin-1"))


@pytest.mark.parametrize("value", [b"chunkedx", b"'chunked'", b'"chunked"', b"chun ked", b"chunked;"])
def test_near_misses_of_chunked_are_refused(value: bytes) -> None:
    assert refused(b"Transfer-Encoding: " + value)[0] in (400, 501)


def test_chunked_in_http_1_0_is_refused() -> None:
    assert refused(b"Transfer-Encoding: chunked", line=b"GET / HTTP/1.0") == BAD
    with pytest.raises(ProtocolError, match=r"in HTTP/1\.0"):
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")


# The connection (RFC 9112 9.3, RFC 9110 7.6.1)


@pytest.mark.parametrize(
    ("minor", "fields", "keep"),
    [
        (1, (), True),
        (1, (b"Connection: close",), False),
        (1, (b"connection: Foo , CLOSE",), False),
        (1, (b"Connection: keep-alive", b"Connection: close"), False),
        (1, (b"Connection: keep-alive",), True),
        (1, (b"Connection: closed",), True),
        (1, (b"Connection:",), True),
        (0, (), False),
        (0, (b"Connection: keep-alive",), True),
        (0, (b"Connection: Keep-Alive, close",), False),
        (0, (b"Connection: x",), False),
    ],
)
def test_keeping_the_connection(minor: int, fields: tuple[bytes, ...], keep: bool) -> None:
    assert request(*fields, line=b"GET / HTTP/1.%d" % minor).keep_alive is keep
    head = response(*fields, b"Content-Length: 0", line=b"HTTP/1.%d 200 OK" % minor)
    assert head.keep_alive is keep


HOP_BY_HOP = (
    b"Connection: close, X-Hop,, x-hop2",
    b"Keep-Alive: timeout=5",
    b"proxy-connection: keep-alive",
    b"TE: gzip",
    b"Upgrade: h2c",
    b"x-HOP: 1",
    b"X-Hop: 2",
    b"X-Hop2: 3",
)
END_TO_END = (
    b"X-Hop3: 4",
    b"x-DUP: 1",
    b"X-Dup: 2",
    b"Trailer: X",
    b"Via: 1.1 a",
    b"empty:",
    b"Content-Length: 3",
)


def test_lines_of_this_hop_are_dropped_and_all_others_pass() -> None:
    mixed = [line for pair in zip(HOP_BY_HOP, END_TO_END, strict=False) for line in pair] + [HOP_BY_HOP[7]]
    passed = b"\r\n".join(END_TO_END)
    assert request(*mixed).render(b"") == b"GET / HTTP/1.1\r\nHost: a\r\n" + passed + b"\r\n\r\n"
    head = response(*mixed)
    assert not head.passes_whole
    assert head.render(b"") == b"HTTP/1.1 200 OK\r\n" + passed + b"\r\n\r\n"


def test_a_line_too_many_is_refused_before_the_head_has_ended() -> None:
    """A head that came line by line would be looked at again with each of them."""
    begun = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_LINES
    assert scan_request(begun) is None
    for more in (b"a: b\r\n", b"a: b\r\n" * 9, b"a: b\r\nbare\n"):
        with pytest.raises(ProtocolError, match="more than 256") as caught:
            scan_request(begun + more)
        assert caught.value.status == 431
    with pytest.raises(ProtocolError, match="bare"):
        scan_request(begun + b"bare\na: b\r\n")
    with pytest.raises(ProtocolError, match="more than 256"):
        scan_response(begun.replace(b"GET / HTTP/1.1", b"HTTP/1.1 200 OK") + b"a: b\r\n", 0, 0)
