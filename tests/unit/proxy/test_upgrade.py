"""101: two HTTP connections become one session (behaviour 12, RFC 9110 7.8)."""

from collections.abc import Callable

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.model import Outcome

MakeProxy = Callable[..., Proxy]

ASKED = request("GET /chat", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: x")
LINE = b"HTTP/1.1 101 Switching Protocols\r\n"
SWITCHED = LINE + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n"
PASSED = LINE + b"Upgrade: websocket\r\nSec-WebSocket-Accept: y\r\nConnection: Upgrade\r\n\r\n"


def switched(proxy: Proxy, early: bytes = b"", late: bytes = b"") -> tuple[MemoryTransport, MemoryTransport]:
    """A client and an endpoint that have switched; what has been said so far is taken away."""
    client = proxy.client(ASKED + early)
    endpoint = proxy.accept()
    assert endpoint.taken().startswith(b"GET /chat HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUpgrade: websocket\r\n")
    endpoint.feed(SWITCHED + late)
    assert client.taken() == PASSED + late
    assert endpoint.taken() == early
    return client, endpoint


def test_what_is_said_after_101_passes_both_ways_whatever_it_is(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    client.feed(b"GET / HTTP/1.1\r\n\r\n", b"\x00")
    endpoint.feed(b"HTTP/1.1 200 OK\r\n\r\n", b"\xff")
    assert endpoint.taken() == b"GET / HTTP/1.1\r\n\r\n\x00"
    assert client.taken() == b"HTTP/1.1 200 OK\r\n\r\n\xff"


def test_bytes_that_came_with_the_heads_are_not_lost(proxy: Proxy) -> None:
    switched(proxy, early=b"early", late=b"late")


def test_it_is_counted_as_a_request_and_as_a_session(proxy: Proxy) -> None:
    client, endpoint = switched(proxy, early=b"abc")
    state = proxy.states[0]
    assert proxy.counted == [("GET", "1xx", "none", 1)]
    assert state.attempts[Outcome.SUCCESS] == 1
    assert (proxy.cluster.stats.in_flight, proxy.cluster.stats.sessions_active) == (0, 1)
    assert (state.in_flight, state.pool.open, state.pool.idle) == (1, 1, [])
    endpoint.feed(b"12345")
    assert (proxy.cluster.stats.bytes_sent, proxy.cluster.stats.bytes_received) == (3, 5)

    client.lose()
    assert endpoint.closing
    endpoint.lose()
    assert proxy.sessions == {"client_closed": 1}
    assert (state.in_flight, state.pool.open) == (0, 0)
    assert proxy.context.clients == 0


def test_half_close_passes_each_way(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    assert client.feed_eof(), "the client may still be answered"
    assert endpoint.eof_written
    endpoint.feed(b"last words")
    assert client.taken() == b"last words"
    assert endpoint.feed_eof()
    assert client.closing
    assert endpoint.closing
    assert proxy.sessions == {"client_closed": 1}


def test_back_pressure_passes_each_way(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    client.fill()
    assert not endpoint.reading
    client.drain()
    assert endpoint.reading
    endpoint.fill()
    assert not client.reading
    endpoint.drain()
    assert client.reading


def test_back_pressure_from_before_the_switch_holds(proxy: Proxy) -> None:
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    endpoint.fill()
    client.fill()
    assert not client.reading
    # What is paused delivers nothing more, so the 101 had been read already.
    endpoint.reading = True
    endpoint.feed(SWITCHED)
    assert not endpoint.reading
    assert not client.reading
    client.drain()
    endpoint.drain()
    assert endpoint.reading
    assert client.reading


def test_a_client_that_has_pipelined_too_much_is_read_from_again(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_request_head=1024)
    client = proxy.client(ASKED, b"x" * 2000)
    assert not client.reading
    endpoint = proxy.accept()
    endpoint.taken()
    endpoint.feed(SWITCHED)
    assert client.reading
    assert endpoint.taken() == b"x" * 2000


def test_a_reset_passes_as_a_reset(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    endpoint.lose(ConnectionResetError())
    assert client.aborted
    assert proxy.sessions == {"endpoint_reset": 1}


def test_a_quiet_tunnel_stays_unless_told_otherwise(make_proxy: MakeProxy) -> None:
    client, _ = switched(make_proxy())
    proxy = make_proxy(tunnel_idle_timeout=5.0)
    limited, endpoint = switched(proxy)
    endpoint.feed(b"x")
    proxy.pass_time(4.0)
    limited.feed(b"y")
    proxy.pass_time(4.0)
    assert not limited.closing
    proxy.pass_time(1.3)
    assert limited.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"idle_timeout": 1}
    assert not client.closing


def test_the_clients_time_out_as_http_is_over(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    proxy.pass_time(3600.0)
    assert not client.closing
    assert not endpoint.closing


def test_draining_leaves_a_tunnel_alone_until_the_end(proxy: Proxy) -> None:
    client, endpoint = switched(proxy)
    (session,) = proxy.context.sweep.members
    assert session.retire(proxy.clock.monotonic())
    session.shut()
    assert client.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"draining": 1}


# What is no switch


def test_a_refused_upgrade_is_http_as_ever(proxy: Proxy) -> None:
    client = proxy.client(ASKED + request("GET /2"))
    endpoint = proxy.accept()
    endpoint.taken()
    endpoint.feed(ok(b"no", "Upgrade: websocket", "Connection: Upgrade"))
    assert client.taken() == ok(b"no")
    assert endpoint.taken().startswith(b"GET /2 "), "what came behind it is the next request"
    endpoint.feed(ok(b"2"))
    assert client.taken() == ok(b"2")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request("GET /"), SWITCHED),
        (request("GET /", "Upgrade: websocket"), SWITCHED),
        (request("GET /", "Upgrade: h2c", "Connection: Upgrade"), SWITCHED.replace(b"websocket", b"h2c")),
        (ASKED, SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: other")),
        (ASKED, SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: websocket, other")),
        (ASKED, SWITCHED.replace(b"Upgrade: websocket\r\n", b"")),
        (ASKED, SWITCHED.replace(b"Connection: Upgrade\r\n", b"")),
    ],
)
def test_a_101_that_nobody_asked_for_is_502(proxy: Proxy, asked: bytes, answer: bytes) -> None:
    client = proxy.client(asked)
    endpoint = proxy.accept()
    endpoint.feed(answer)
    assert error_of(client.data) == (502, "bad_response")
    assert endpoint.aborted
    assert proxy.cluster.stats.sessions_active == 0


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_request_with_a_body_stays_http(proxy: Proxy, framing: str) -> None:
    """Servers disagree about whose the bytes behind such a head are."""
    client = proxy.client(request("POST /", "Upgrade: websocket", "Connection: Upgrade", framing))
    endpoint = proxy.accept()
    assert endpoint.data == request("POST /", framing).replace(b"localhost:8080", b"10.0.0.1:80")
    endpoint.feed(SWITCHED)
    assert error_of(client.data) == (502, "bad_response")
    assert client.eof_written, "the rest of the body would be taken for a request"


def test_426_tells_what_to_ask_for(proxy: Proxy) -> None:
    client = proxy.client(request())
    proxy.accept().feed(ok(b"", "Upgrade: foo", "Connection: Upgrade", status="426 Upgrade Required"))
    assert client.data == ok(b"", "Upgrade: foo", status="426 Upgrade Required").replace(
        b"Content-Length: 0\r\n", b"Content-Length: 0\r\nConnection: Upgrade\r\n"
    )


def test_a_tunnel_ends_with_its_endpoints_place_in_the_rotation_where_that_is_asked_for(
    make_proxy: MakeProxy,
) -> None:
    proxy = make_proxy(endpoints=2, close_on_unhealthy=True)
    client, endpoint = switched(proxy)
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    assert (client.aborted, endpoint.aborted) == (True, True)
    assert proxy.sessions == {"endpoint_unhealthy": 1}


def test_one_that_comes_about_after_that_ends_at_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, close_on_unhealthy=True)
    client = proxy.client(ASKED)
    endpoint = proxy.accept()
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    endpoint.feed(SWITCHED + b"early")
    assert client.data.startswith(b"HTTP/1.1 101")
    assert (client.aborted, endpoint.aborted) == (True, True)
    assert proxy.sessions == {"endpoint_unhealthy": 1}
