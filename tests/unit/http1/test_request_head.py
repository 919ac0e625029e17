"""Request heads: the request line, Host, and what goes to the endpoint."""

import pytest

from sidecar.errors import ProtocolError, Reason
from sidecar.http1 import RequestHead, scan_request
from sidecar.http1.head import CHUNKED, MAX_LINES
from sidecar.model.stats import METHODS


def request(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> RequestHead:
    """The head of these lines, complete and valid. host: its line, empty for none."""
    lines = [line, *([host] if host else []), *fields]
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    head = scan_request(data)
    assert head is not None
    assert head.size == len(data)
    return head


def refused(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> tuple[int, Reason]:
    """Status and reason of a request's refusal."""
    with pytest.raises(ProtocolError) as caught:
        request(*fields, line=line, host=host)
    return caught.value.status, caught.value.reason


BAD = (400, Reason.BAD_REQUEST)


# The request line


def test_a_request_line_is_read() -> None:
    head = request(line=b"POST /a%20b?c=d#e HTTP/1.1")
    assert METHODS[head.method] == "POST"
    assert (head.target, head.minor, head.length) == (b"/a%20b?c=d#e", 1, 0)
    assert head.keep_alive


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("CONNECT", "OTHER")])
def test_the_known_methods(name: str) -> None:
    head = request(line=name.encode() + b" / HTTP/1.1")
    assert METHODS[head.method] == name
    assert head.idempotent == (name in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")), "RFC 9110 9.2.2"


@pytest.mark.parametrize("name", [b"get", b"PROPFIND", b"OTHER", b"M-SEARCH", b"!#$%&'*+-.^_`|~09az"])
def test_any_other_token_is_a_method_and_passes(name: bytes) -> None:
    head = request(line=name + b" / HTTP/1.1")
    assert METHODS[head.method] == "OTHER"
    assert not head.idempotent
    assert head.render(b"") == name + b" / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "target",
    [b"/", b"/a/../b//c?d=/#e", b"/%zz", b'/"<>\\^`{|}', b"/\xc3\xa4", b"/http://a/b"],
)
def test_a_target_passes_byte_for_byte(target: bytes) -> None:
    head = request(line=b"GET " + target + b" HTTP/1.1")
    assert head.target == target
    assert head.render(b"").startswith(b"GET " + target + b" HTTP/1.1\r\n")


def test_only_options_may_ask_about_the_whole_server() -> None:
    assert request(line=b"OPTIONS * HTTP/1.1").target == b"*"
    assert refused(line=b"GET * HTTP/1.1") == BAD


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET",
        b"",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /a\tb HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET a:443 HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http://a\tb HTTP/1.1",
        b"GET ftp://a/ HTTP/1.1",
        b"OPTIONS ** HTTP/1.1",
        b"GET  HTTP/1.1",
        b" / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xe4T / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET /\t HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.1x",
        b"GET / HTTP/1",
        b"GET / HTTP/11.1",
        b"GET / HTTPS/1.1",
        b"GET / XTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
    ],
)
def test_what_is_no_request_line_is_refused(line: bytes) -> None:
    expected = 505 if line == b"GET / HTTP/1" else 400  # a version, only not one of ours
    assert refused(line=line)[0] == expected


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"2", b"3"])
def test_other_versions_are_505(version: bytes) -> None:
    assert refused(line=b"GET / HTTP/" + version) == (505, Reason.BAD_REQUEST)


def test_connect_is_501() -> None:
    assert refused(line=b"CONNECT a:443 HTTP/1.1") == (501, Reason.BAD_REQUEST)


def test_a_first_byte_that_begins_no_request_is_400_in_any_split() -> None:
    lines = [b"a: b"] * (MAX_LINES + 1)
    assert refused(*lines, line=b"(GET / HTTP/1.1") == BAD, "as when the first byte comes alone"


# Host (RFC 9112 3.2)


@pytest.mark.parametrize(
    "host", [b"", b"a", b"a.b-c_d:8080", b"[::1]:80", b"127.0.0.1", b"a%20b", b"~!$&'()*+,;="]
)
def test_hosts(host: bytes) -> None:
    for spaces in (b"%b", b" %b", b"\t%b \t"):
        line = b"hOST:" + spaces % host
        head = request(host=line)
        assert head.render(b"") == b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n", "byte for byte unless replaced"


@pytest.mark.parametrize(
    "host", [b"a b", b"user@a", b"a/b", b"a?b", b"a#b", b'"a"', b"\xe4", b"a\\b", b"<a>"]
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    assert refused(host=b"Host: " + host) == BAD


def test_host_is_there_once() -> None:
    assert refused(host=b"") == BAD
    assert refused(b"host: a") == BAD, "twice, even when the same"


def test_the_authority_replaces_the_host_in_its_place() -> None:
    head = request(b"B: 2", b"Connection: b", b"hOsT: mine", b"C: 3", line=b"GET / HTTP/1.1", host=b"A: 1")
    assert head.render(b"e:80") == b"GET / HTTP/1.1\r\nA: 1\r\nhOsT: e:80\r\nC: 3\r\n\r\n"


def test_render_joins_what_has_come_of_the_body_and_may_be_asked_again() -> None:
    head = request(b"Content-Length: 5")
    assert head.render(b"e:80", b"hello") == b"GET / HTTP/1.1\r\nHost: e:80\r\nContent-Length: 5\r\n\r\nhello"
    assert head.render(b"f:81") == b"GET / HTTP/1.1\r\nHost: f:81\r\nContent-Length: 5\r\n\r\n"


# Expect (RFC 9110 10.1.1)


@pytest.mark.parametrize("value", [b"100-continue", b" 100-Continue\t", b"200-ok", b"100-continue, x"])
def test_expect_passes(value: bytes) -> None:
    assert b"\r\nExpect:" + value + b"\r\n" in request(b"Expect:" + value).render(b"")


# The connection (RFC 9110 7.6.1)


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"content-length"])
def test_connection_cannot_take_out_what_frames_or_routes(name: bytes) -> None:
    head = request(b"Connection: " + name, b"Content-Length: 3")
    assert head.render(b"") == b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


def test_connection_cannot_take_out_the_transfer_coding() -> None:
    head = request(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")
    assert head.length == CHUNKED
    assert b"Transfer-Encoding: chunked" in head.render(b"")


def test_a_nominated_line_before_host_moves_it() -> None:
    head = request(b"Host: a", b"Connection: x", host=b"X: 1")
    assert head.render(b"e") == b"GET / HTTP/1.1\r\nHost: e\r\n\r\n"


# HTTP/1.0 clients (RFC 9112 2.3, 3.2)


def test_http_1_0_goes_on_as_1_1() -> None:
    head = request(line=b"GET /x HTTP/1.0")
    assert head.minor == 0
    assert head.render(b"") == b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def test_http_1_0_without_host_gets_one() -> None:
    fields = (b"Connection: keep-alive", b"A: 1")
    assert request(*fields, line=b"GET / HTTP/1.0", host=b"").render(b"") == (
        b"GET / HTTP/1.1\r\nHost: \r\nA: 1\r\n\r\n"
    )
    assert request(*fields, line=b"GET / HTTP/1.0", host=b"").render(b"e:80") == (
        b"GET / HTTP/1.1\r\nHost: e:80\r\nA: 1\r\n\r\n"
    )


# A head that somebody changes


def test_fields_are_found_changed_added_and_taken_out() -> None:
    head = request(b"B: 2", b"b:  3\t", b"C: 4").unpacked()
    places = head.places(b"b")
    assert places == [2, 3]
    assert head.values(places) == [b"2", b"3"]
    head.put(places[0], b"5")
    head.drop(places[1:])
    head.add(b"d", b"6")
    assert head.values(head.places(b"b")) == [b"5"]
    assert head.values(head.places(b"d")) == [b"6"]
    assert head.values(head.places(b"e")) == []
    head.drop([])


@pytest.mark.parametrize("before", [True, False])
def test_host_is_still_found_when_fields_before_or_behind_it_are_taken_out(before: bool) -> None:
    host, more = (b"X: 1", (b"Host: mine", b"Y: 2")) if before else (b"Host: mine", (b"X: 1", b"Y: 2"))
    head = request(*more, host=host).unpacked()
    head.drop(head.places(b"x"))
    assert head.render(b"e:80").endswith(b"\r\nHost: e:80\r\nY: 2\r\n\r\n")
    assert b"X" not in head.render(b"e:80")


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /a HTTP/1.1\r\nA: b\r\nHost: here:80\r\nConnection: close\r\nContent-Length: 3\r\n\r\n",
        b"GET /a HTTP/1.0\r\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_a_copy_is_the_same_and_another(raw: bytes) -> None:
    head = scan_request(raw, 0, 65536)
    assert head is not None
    before = head.render(b"other")
    copy = head.copy()
    for name in ("method", "target", "minor", "length", "size", "keep_alive", "extras"):
        assert getattr(copy, name) == getattr(head, name)
    assert copy.render(b"other") == before
    copy.add(b"x", b"y")
    assert copy.render(b"third") != before
    assert head.render(b"other") == before
