"""Endpoints that answer nonsense, or nothing in time."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.http1.state import IllegalEventError, State
from sidecar.model import Outcome

MakeProxy = Callable[..., Proxy]


# Answers that are none


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200\r\nBad Header: 1\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        ok(b"", "Content-Length: 5"),
        ok(b"", "Transfer-Encoding: chunked"),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        ok(b"", "X-A: " + "a" * 2000),
        ok(b"", "X-A: " + "a" * 2000)[:1500],
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + b"garbage",
    ],
)
def test_a_bad_response_is_502(make_proxy: MakeProxy, answer: bytes) -> None:
    proxy = make_proxy(endpoints=2, max_response_head=1024)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(answer)

    assert endpoint.aborted
    assert error_of(client.data.replace(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"")) == (502, "bad_response")
    assert not client.closing
    assert proxy.counted == [("GET", "5xx", "bad_response", 1)]
    assert proxy.states[0].attempts[Outcome.BAD_RESPONSE] == 1
    assert proxy.states[0].breaker.failures == 1
    assert proxy.states[0].pool.open == 0


def test_a_response_that_turns_bad_breaks_the_clients_connection(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"3\r\nabc\r\n", "Transfer-Encoding: chunked", length=False), b"zz\r\n")

    assert client.aborted
    assert endpoint.aborted
    assert b"zz" not in client.data
    assert proxy.counted == [("GET", "2xx", "bad_response", 1)]


# Time


def test_an_endpoint_that_does_not_answer_is_504(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    proxy.pass_time(5.0)
    assert not client.data, "never early"
    proxy.pass_time(0.1)

    assert error_of(client.data) == (504, "request_timeout")
    assert not client.closing
    assert endpoint.aborted
    assert proxy.counted == [("GET", "5xx", "request_timeout", 1)]
    assert proxy.states[0].attempts[Outcome.REQUEST_TIMEOUT] == 1
    assert proxy.states[0].breaker.failures == 1


def test_time_begins_when_the_request_has_been_sent(make_proxy: MakeProxy) -> None:
    """Connecting has a time-out of its own."""
    proxy = make_proxy(timeout=5.0, connect_timeout=5.0)
    client = proxy.client(request())
    proxy.pass_time(4.0)
    endpoint = proxy.accept()
    proxy.pass_time(4.0)
    endpoint.feed(ok())
    assert client.data == ok()


def test_a_response_that_moves_has_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    answer = ok(b"abcdef")
    endpoint.feed(answer[:-6])
    for at in range(len(answer) - 6, len(answer)):
        proxy.pass_time(4.0)
        endpoint.feed(answer[at : at + 1])
    assert client.data == answer


def test_a_response_that_stops_moving_breaks_the_clients_connection(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    proxy.pass_time(5.2)

    assert client.aborted
    assert endpoint.aborted
    assert proxy.counted == [("GET", "2xx", "request_timeout", 1)]
    assert proxy.states[0].breaker.failures == 1


def test_a_time_out_while_connecting(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=0.5, connect_timeout=5.0)
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    proxy.pass_time(0.7)
    assert error_of(client.data) == (504, "request_timeout")
    assert attempt.cancelled
    assert proxy.cluster.limit.used == 0


def test_a_body_that_stops_after_the_response_has_begun_breaks_the_connection(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request("POST /", "Content-Length: 9", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    proxy.pass_time(5.2)
    assert client.aborted
    assert proxy.counted == [("POST", "2xx", "request_timeout", 1)]
    assert proxy.states[0].breaker.failures == 0, "it is the client that does not move"


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_a_body_that_turns_bad_is_broken_off_at_the_same_byte_however_it_comes(
    proxy: Proxy, cut: int
) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    answer = ok(b"2\r\nok\r\nzz\r\n", "Transfer-Encoding: chunked", length=False)
    endpoint.feed(*filter(None, [answer[: len(answer) - cut], answer[len(answer) - cut :]]))
    assert client.data == ok(b"2\r\nok\r\n", "Transfer-Encoding: chunked", length=False)
    assert client.aborted, "never a fake clean end"
    assert endpoint.aborted
    assert proxy.counted == [("GET", "2xx", "bad_response", 1)]


# Mistakes of our own


def test_an_event_that_may_not_be_resets_the_client_and_is_tried_nowhere_else(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.taken()
    client.protocol.exchange.state = State.ANSWERING  # the mistake: no answer has begun
    with pytest.raises(IllegalEventError, match="RESPONSE_WHOLE in state ANSWERING"):
        endpoint.feed(ok())
    assert client.aborted
    endpoint.lose(OSError("as the loop ends a connection whose protocol failed"))
    assert proxy.connecting == []
    client.lose()
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]
    assert proxy.states[0].breaker.failures == 0
