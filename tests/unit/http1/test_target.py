"""Request targets in absolute-form, and authorities (RFC 9112 3.2, RFC 3986 3.2)."""

import pytest

from sidecar.errors import ProtocolError
from sidecar.http1 import scan_request
from sidecar.http1.target import MAX_AUTHORITY, is_authority, origin_form, same_authority


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a",
        b"A-1.b_c~:80",
        b"127.0.0.1:8080",
        b"a:",
        b"[::1]",
        b"[::1]:80",
        b"[fe80::1%25eth0]:1",
        b"[v1.a:b]",
        b"a%20!$&'()*+,;=",
    ],
)
def test_authorities(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"u@a",
        b"a:80:80",
        b"a:b",
        b"a:-1",
        b"a:123456",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[x]",
        b"a/",
        b"a?",
        b"a#",
        b"a\\b",
        b'"a"',
        b"\xe4",
        b"[::1]x",
        b"[::1]:x",
        b"a,[::1]",
    ],
)
def test_what_is_no_authority(value: bytes) -> None:
    assert not is_authority(value)


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        (b"http://a/b?c", False, (b"/b?c", b"a", b"http")),
        (b"HTTP://A:80", False, (b"/", b"A:80", b"http")),
        (b"https://[::1]:8443?q", False, (b"/?q", b"[::1]:8443", b"https")),
        (b"http://a", True, (b"*", b"a", b"http")),
        (b"http://a/", True, (b"/", b"a", b"http")),
        (b"http://a?b", True, (b"/?b", b"a", b"http")),
    ],
)
def test_absolute_form_becomes_origin_form(target: bytes, options: bool, expected: tuple[bytes, ...]) -> None:
    assert origin_form(target, options=options) == expected


@pytest.mark.parametrize(
    "target",
    [
        b"a",
        b"",
        b"*",
        b"http:/a",
        b"http:a",
        b"http://",
        b"http:///a",
        b"http://:80/",
        b"http://u@a/",
        b"http://u:p@a/",
        b"ftp://a/",
        b"file:///a",
        b"http://a b/",
        b"http://a#f",
        b"a:80",
        b"http://a:b/",
        b"http://a\x00/",
    ],
)
def test_what_is_no_url_is_refused(target: bytes) -> None:
    with pytest.raises(ProtocolError):
        origin_form(target, options=False)


@pytest.mark.parametrize(
    ("one", "other", "scheme", "same"),
    [
        (b"A", b"a", b"http", True),
        (b"a:80", b"a", b"http", True),
        (b"a", b"a:443", b"https", True),
        (b"a:", b"a", b"http", True),
        (b"a:443", b"a", b"http", False),
        (b"a", b"", b"http", False),
        (b"a", b"b", b"http", False),
        (b"a:8080", b"a:80", b"http", False),
    ],
)
def test_authorities_that_are_one(one: bytes, other: bytes, scheme: bytes, same: bool) -> None:
    assert same_authority(one, other, scheme) is same


def render(head: bytes) -> bytes:
    """What an endpoint is sent for this head, Host as it came."""
    scanned = scan_request(head)
    assert scanned is not None
    return scanned.render(b"")


def test_a_request_in_absolute_form_goes_on_in_origin_form() -> None:
    head = b"GET http://a.example/x HTTP/1.1\r\nX: 1\r\nhOST: A.example:80\r\n\r\n"
    assert render(head) == b"GET /x HTTP/1.1\r\nX: 1\r\nhOST: A.example:80\r\n\r\n"
    assert render(b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize("host", [b"Host: b\r\n", b"Host: \r\n", b"Host: a:81\r\n", b""])
def test_host_has_to_agree(host: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"Host is missing|different authorities"):
        scan_request(b"GET http://a/ HTTP/1.1\r\n" + host + b"\r\n")


def test_the_target_says_the_host_where_http_1_0_does_not() -> None:
    assert (
        render(b"GET http://a:1/x HTTP/1.0\r\nX: 1\r\n\r\n")
        == b"GET /x HTTP/1.1\r\nHost: a:1\r\nX: 1\r\n\r\n"
    )


def test_a_port_is_one_and_a_name_is_not_endless() -> None:
    assert is_authority(b"a:65535")
    assert not is_authority(b"a:65536")
    assert is_authority(b"65536")
    assert is_authority(b"[::65536]")
    assert is_authority(b"a" * MAX_AUTHORITY)
    assert not is_authority(b"a" * (MAX_AUTHORITY + 1))
