"""What belongs to one hop, and what becomes of it on the next (RFC 9110 7.6, 7.8, 10.1)."""

import pytest

from sidecar.errors import ProtocolError
from sidecar.http1 import RequestHead, ResponseHead, scan_request, scan_response
from sidecar.http1.message import NO_EXTRAS


def request(*fields: str, line: str = "GET / HTTP/1.1") -> RequestHead:
    """A scanned request with these fields after Host."""
    head = scan_request("\r\n".join([line, "Host: a", *fields, "", ""]).encode("latin-1"))
    assert head is not None
    return head


def response(*fields: str, line: str = "HTTP/1.1 200 OK") -> ResponseHead:
    """A scanned response."""
    head = scan_response("\r\n".join([line, *fields, "", ""]).encode("latin-1"), 0, 0)
    assert head is not None
    return head


def passed(head: RequestHead | ResponseHead) -> list[str]:
    """The fields that go on, without Host."""
    lines = head.render(b"").decode("latin-1").split("\r\n")[1:-2]
    return [line for line in lines if line != "Host: a"]


def test_a_head_without_rare_fields_has_no_extras() -> None:
    assert request("X: 1", "Connection: close").extras is NO_EXTRAS
    assert response("X: 1", "Connection: close").extras is NO_EXTRAS


# Upgrade


def test_an_upgrade_goes_on() -> None:
    head = request("upgrade: WebSocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: x")
    assert head.extras.upgrade == (b"websocket",)
    assert passed(head) == ["upgrade: WebSocket", "Sec-WebSocket-Key: x", "Connection: Upgrade"]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (["Upgrade: websocket"], "GET / HTTP/1.1"),
        (["Upgrade: websocket", "Connection: keep-alive"], "GET / HTTP/1.1"),
        (["Upgrade: websocket", "Connection: upgrade"], "GET / HTTP/1.0"),
        (["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAA"], "GET / HTTP/1.1"),
        (["Upgrade: HTTP/2.0, h2", "Connection: Upgrade"], "GET / HTTP/1.1"),
        (["Upgrade: ,", "Connection: Upgrade"], "GET / HTTP/1.1"),
    ],
)
def test_an_upgrade_that_is_none_or_to_another_http_does_not(fields: list[str], line: str) -> None:
    head = request(*fields, line=line)
    assert head.extras.upgrade == ()
    assert passed(head) == []


def test_of_several_protocols_another_http_is_left_out() -> None:
    head = request("Upgrade: h2c, foo/2", "Upgrade: bar", "Connection: Upgrade")
    assert head.extras.upgrade == (b"foo/2", b"bar")
    assert passed(head) == ["Upgrade: foo/2", "Upgrade: bar", "Connection: Upgrade"]


@pytest.mark.parametrize("value", ["foo bar", "foo;q=1", '"foo"', "f\xf6"])
def test_what_is_no_list_of_protocols_is_refused(value: str) -> None:
    with pytest.raises(ProtocolError, match="Upgrade"):
        request(f"Upgrade: {value}", "Connection: Upgrade")
    assert passed(request(f"Upgrade: {value}")) == [], "nothing asks for it here"


def test_a_101_says_so_in_both_fields() -> None:
    line = "HTTP/1.1 101 Switching Protocols"
    head = response("Upgrade: websocket", "Connection: Upgrade", line=line)
    assert head.extras.upgrade == (b"websocket",)
    assert passed(head) == ["Upgrade: websocket", "Connection: Upgrade"]
    for fields in (["Upgrade: websocket"], ["Connection: Upgrade"], ["Upgrade: h2c", "Connection: Upgrade"]):
        assert response(*fields, line=line).extras.upgrade == ()


def test_426_keeps_what_it_asks_for_and_other_responses_do_not() -> None:
    head = response("Upgrade: foo", "Connection: close", line="HTTP/1.1 426 Upgrade Required")
    assert passed(head) == ["Upgrade: foo", "Connection: Upgrade"]
    assert not head.passes_whole
    offer = response("Upgrade: h2,h2c", "Connection: Upgrade, Keep-Alive")
    assert passed(offer) == []
    assert passed(response("Upgrade: foo bar", "Connection: Upgrade")) == []


# TE and trailers


@pytest.mark.parametrize("value", ["trailers", "Trailers, gzip;q=0.5", "gzip, trailers"])
def test_a_client_that_takes_trailers_says_so_on_the_next_hop(value: str) -> None:
    head = request(f"TE: {value}", "Connection: TE")
    assert head.extras.takes_trailers
    assert passed(head) == ["TE: trailers", "Connection: TE"]


@pytest.mark.parametrize("value", ["gzip", "", "trailers;q=1", "xtrailers"])
def test_other_transfer_codings_are_nobodys_on_the_next_hop(value: str) -> None:
    head = request(f"TE: {value}", "Connection: TE")
    assert not head.extras.takes_trailers
    assert passed(head) == []


def test_te_is_said_once_beside_an_upgrade_and_never_by_http_1_0_or_an_endpoint() -> None:
    head = request("TE: trailers", "TE: trailers", "Upgrade: foo", "Connection: TE, Upgrade")
    assert passed(head) == ["TE: trailers", "Upgrade: foo", "Connection: Upgrade, TE"]
    assert passed(request("TE: trailers", line="GET / HTTP/1.0")) == []
    assert passed(response("TE: trailers")) == []


def test_announced_trailers_are_known_by_name() -> None:
    fields = ("Trailer: X-A, ,x-b", "trailer: X-C")
    for head in (request(*fields), response(*fields)):
        assert head.extras.trailers == {b"x-a", b"x-b", b"x-c"}
        assert passed(head) == list(fields)
    assert response(*fields).passes_whole


# Expect


@pytest.mark.parametrize("value", ["100-continue", "100-Continue ", ",100-continue"])
def test_an_expectation_goes_on_and_is_known(value: str) -> None:
    head = request(f"Expect: {value}", "Content-Length: 1")
    assert head.extras.expects
    assert passed(head)[0] == f"Expect: {value}"


def test_other_expectations_are_the_endpoints_business() -> None:
    head = request("Expect: 200-ok")
    assert not head.extras.expects
    assert passed(head) == ["Expect: 200-ok"]
    assert passed(response("Expect: 100-continue", "Max-Forwards: 1")) == [
        "Expect: 100-continue",
        "Max-Forwards: 1",
    ]


def test_http_1_0_expects_nothing() -> None:
    """RFC 9110 10.1.1: to be ignored there; and it goes on as HTTP/1.1, whose endpoint would send 100."""
    head = request("Expect: 100-continue", "Content-Length: 1", line="POST / HTTP/1.0")
    assert not head.extras.expects
    assert passed(head) == ["Content-Length: 1"]


# Max-Forwards


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_max_forwards_counts_down(method: str) -> None:
    head = request("max-forwards: 010", line=f"{method} / HTTP/1.1")
    assert head.extras.max_forwards == 10
    assert passed(head) == ["max-forwards: 9"]
    assert request("Max-Forwards: 0", line=f"{method} / HTTP/1.1").extras.max_forwards == 0


@pytest.mark.parametrize(
    "fields",
    [
        ["Max-Forwards: x"],
        ["Max-Forwards: -1"],
        ["Max-Forwards:"],
        ["Max-Forwards: 9999999999"],
        ["Max-Forwards: 1"] * 2,
    ],
)
def test_max_forwards_that_is_no_number_is_refused(fields: list[str]) -> None:
    with pytest.raises(ProtocolError, match="Max-Forwards"):
        request(*fields, line="TRACE / HTTP/1.1")


def test_max_forwards_of_other_methods_is_not_looked_at() -> None:
    head = request("Max-Forwards: x")
    assert head.extras.max_forwards == -1
    assert passed(head) == ["Max-Forwards: x"]


# Nominated fields


def test_what_connection_names_goes_but_never_what_frames_or_routes_the_message() -> None:
    head = request(
        "Connection: X-A, host, content-length, expect, te, upgrade",
        "X-A: 1",
        "x-a: 2",
        "Content-Length: 0",
        "Expect: 100-continue",
        "X-B: 3",
    )
    assert passed(head) == ["Content-Length: 0", "X-B: 3"]
    assert head.render(b"").startswith(b"GET / HTTP/1.1\r\nHost: a\r\n")


def test_host_keeps_its_place_whatever_goes_before_it() -> None:
    head = scan_request(
        b"GET / HTTP/1.1\r\nTE: gzip\r\nX-A: 1\r\nUpgrade: x\r\nHost: a\r\nConnection: X-A\r\n\r\n"
    )
    assert head is not None
    assert head.render(b"b:1") == b"GET / HTTP/1.1\r\nHost: b:1\r\n\r\n"
