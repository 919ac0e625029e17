"""Expect: 100-continue from end to end, and interim responses (behaviour 11, RFC 9110 10.1.1, 15.2)."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.proxy.respond import CONTINUE

MakeProxy = Callable[..., Proxy]

ASKED = request("PUT /", "Expect: 100-continue", "Content-Length: 5")


def test_the_endpoints_word_reaches_the_client_and_then_the_body_the_endpoint(proxy: Proxy) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    assert endpoint.taken() == ASKED.replace(b"localhost:8080", b"10.0.0.1:80")
    endpoint.feed(b"HTTP/1.1 100 Go on\r\nX: 1\r\n\r\n")
    assert client.taken() == b"HTTP/1.1 100 Go on\r\nX: 1\r\n\r\n"
    client.feed(b"hello")
    assert endpoint.taken() == b"hello"
    endpoint.feed(ok())
    assert client.taken() == ok()
    assert not client.closing
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_a_silent_endpoint_is_waited_for_and_then_the_body_is_asked_for(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(continue_timeout=2.0)
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    endpoint.taken()
    proxy.pass_time(1.9)
    assert client.data == b""
    proxy.pass_time(0.3)
    assert client.taken() == CONTINUE
    proxy.pass_time(10.0)
    assert client.data == b"", "once"
    client.feed(b"hello")
    assert endpoint.taken() == b"hello"
    endpoint.feed(CONTINUE + ok())
    assert client.taken() == CONTINUE + ok(), "a late 100 does no harm, and is the endpoint's to send"
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_the_wait_begins_with_the_connection(make_proxy: MakeProxy) -> None:
    """Nobody can have been asked before there is one."""
    proxy = make_proxy(connect_timeout=20.0)
    client = proxy.client(ASKED)
    proxy.pass_time(5.0)
    assert client.data == b""
    proxy.accept()
    proxy.pass_time(0.9)
    assert client.data == b""
    proxy.pass_time(0.3)
    assert client.data == CONTINUE


def test_a_client_that_does_not_wait_is_told_nothing(proxy: Proxy) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    client.feed(b"he")
    proxy.pass_time(5.0)
    assert client.data == b""
    client.feed(b"llo")
    endpoint.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("body", [b"h", b"hello"])
def test_a_body_that_comes_with_its_head_waits_for_nothing(proxy: Proxy, body: bytes) -> None:
    client = proxy.client(ASKED + body)
    endpoint = proxy.accept()
    assert endpoint.data.endswith(b"\r\n\r\n" + body)
    proxy.pass_time(5.0)
    assert client.data == b""


@pytest.mark.parametrize("status", ["417 Expectation Failed", "401 Unauthorized", "200 OK"])
def test_a_final_answer_instead_of_100_reaches_the_client_and_the_connection_ends(
    proxy: Proxy, status: str
) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    endpoint.feed(ok(b"no", status=status))
    assert client.data == ok(b"no", status=status).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert client.eof_written
    assert endpoint.closing, "it may still wait for the body"
    client.feed(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert proxy.connecting == []


def test_a_streamed_answer_instead_of_100(proxy: Proxy) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    endpoint.feed(ok(b"0123456789", status="413 Content Too Large")[:-5])
    proxy.pass_time(5.0)
    assert CONTINUE not in client.data, "the final answer has begun"
    endpoint.feed(b"56789")
    closing = ok(b"0123456789", "Connection: close", status="413 Content Too Large")
    assert client.data == closing.replace(
        b"Connection: close\r\nContent-Length: 10\r\n", b"Content-Length: 10\r\nConnection: close\r\n"
    )
    assert client.eof_written


def test_an_interim_response_leaves_the_client_waiting_and_makes_it_wait_no_longer(proxy: Proxy) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    proxy.pass_time(0.8)
    endpoint.feed(hints)
    assert client.taken() == hints
    proxy.pass_time(0.4)
    assert client.taken() == CONTINUE


def test_a_bound_of_zero_asks_with_the_next_sweep(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(continue_timeout=0.0)
    client = proxy.client(ASKED)
    proxy.accept()
    proxy.pass_time(0.2)
    assert client.data == CONTINUE


def test_a_body_that_never_comes_after_100_is_408(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(ASKED)
    proxy.accept()
    proxy.pass_time(1.2)
    assert client.taken() == CONTINUE
    proxy.pass_time(5.2)
    assert error_of(client.data) == (408, "request_timeout")


def test_the_time_out_of_the_request_is_the_longest_that_anybody_waits(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=0.5, continue_timeout=60.0)
    client = proxy.client(ASKED)
    proxy.accept()
    proxy.pass_time(0.7)
    assert client.data == CONTINUE


def test_http_1_0_is_told_nothing(proxy: Proxy) -> None:
    asked = request("PUT /", "Expect: 100-continue", "Content-Length: 5", version="1.0")
    client = proxy.client(asked)
    endpoint = proxy.accept()
    assert b"Expect" not in endpoint.data
    endpoint.feed(CONTINUE)
    proxy.pass_time(5.0)
    assert client.data == b""
    client.feed(b"hello")
    endpoint.feed(ok())
    assert client.data == ok()


def test_interim_responses_are_progress(make_proxy: MakeProxy) -> None:
    """A server that says 102 every few seconds is at work (RFC 2518 10.1)."""
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    for _ in range(5):
        proxy.pass_time(4.0)
        endpoint.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    endpoint.feed(ok())
    assert client.data.endswith(ok())
