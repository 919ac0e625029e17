"""Requests whose Max-Forwards ends at this proxy (RFC 9110 7.6.2), and the unusual methods."""

import pytest
from unit.proxy.harness import Proxy, error_of, ok, request


def test_trace_is_answered_with_what_came(proxy: Proxy) -> None:
    asked = request("TRACE /a", "Max-Forwards: 0", "X-A: 1", "Cookie: secret", "authorization: secret")
    client = proxy.client(asked)
    echo = request("TRACE /a", "Max-Forwards: 0", "X-A: 1")
    assert client.data == (
        b"HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo)
    )
    assert not client.closing
    assert proxy.connecting == []
    assert proxy.counted == [("TRACE", "2xx", "none", 1)]


def test_options_is_answered_with_nothing_to_say(proxy: Proxy) -> None:
    client = proxy.client(request("OPTIONS *", "Max-Forwards: 0") + request("GET /next"))
    assert client.data == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    endpoint = proxy.accept()
    assert endpoint.data.startswith(b"GET /next ")


def test_a_body_that_has_not_come_ends_the_connection(proxy: Proxy) -> None:
    client = proxy.client(request("OPTIONS /", "Max-Forwards: 0", "Content-Length: 5"))
    assert client.data == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert client.eof_written


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_others_go_on_with_one_less(proxy: Proxy, method: str) -> None:
    client = proxy.client(request(f"{method} /", "Max-Forwards: 5"))
    endpoint = proxy.accept()
    assert endpoint.data == request(f"{method} /", "Max-Forwards: 4").replace(
        b"localhost:8080", b"10.0.0.1:80"
    )
    endpoint.feed(ok())
    assert client.data == ok()


def test_connect_is_refused_clearly(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    assert error_of(client.data) == (501, "bad_request")
    assert b"CONNECT is not served here" in client.data
    assert client.eof_written


def test_the_preface_of_http_2_is_told_the_version(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert error_of(client.data) == (505, "bad_request")
    assert client.eof_written
