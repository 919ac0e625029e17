"""Clients that begin with a PROXY header, and endpoints that are sent one: one client, one connection."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, ok, request

from sidecar.net.proxy_header import Peer
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.proxied import ProxiedConnection, greeting
from sidecar.proxy.tcp import TcpSession

MakeProxy = Callable[..., Proxy]
LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n"


def arrive(proxy: Proxy, *pieces: bytes) -> MemoryTransport:
    """A client comes in where a header is asked for."""
    kind: Any = DownstreamConnection if proxy.cluster.per_request else TcpSession
    protocol = ProxiedConnection(proxy.context, proxy.cluster, partial(kind, proxy.context, proxy.cluster))
    transport = MemoryTransport(protocol)
    proxy.clients.append(transport)
    for piece in pieces:
        transport.feed(piece)
    return transport


def counts(proxy: Proxy) -> list[int]:
    found: list[int] = proxy.cluster.stats.proxy_headers
    return found


@pytest.mark.parametrize(
    "pieces",
    [[LINE + request()], [LINE, request()], [LINE[:9], LINE[9:] + request()]],
    ids=["whole", "apart", "pieces"],
)
def test_what_comes_behind_the_header_is_a_request(proxy: Proxy, pieces: list[bytes]) -> None:
    client = arrive(proxy, *pieces)
    proxy.begun += 1
    proxy.accept().feed(ok())
    assert client.data == ok()
    assert client.protocol.peer == ("192.0.2.7", 5)
    assert client.protocol.peer.reached == ("192.0.2.1", 80)
    assert (counts(proxy), proxy.context.clients) == ([1, 0, 0, 0], 1)


def test_a_header_that_names_nobody_leaves_the_connections_own_ends(proxy: Proxy) -> None:
    client = arrive(proxy, b"PROXY UNKNOWN\r\n")
    assert isinstance(client.protocol, DownstreamConnection)
    assert client.protocol.peer is None


def test_a_session_knows_its_client_before_it_picks(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=8, scheme="tcp", strategy="ring_hash", hash_on="client", idle_timeout=0.0)
    hosts = []
    for number in (1, 2, 3, 1, 2, 3):
        arrive(proxy, LINE.replace(b"192.0.2.7", b"192.0.2.%d" % number))
        proxy.accept()
        hosts.append(proxy.loop.attempts[-1].host)
    assert hosts[:3] == hosts[3:]
    assert len(set(hosts)) > 1


def test_what_is_no_header_is_closed(proxy: Proxy) -> None:
    client = arrive(proxy, request())
    assert client.aborted
    client.feed(b"more")
    assert (counts(proxy), proxy.context.clients) == ([0, 1, 0, 0], 1), (
        "counted once, and there until it is gone"
    )
    client.lose()
    assert (counts(proxy), proxy.context.clients) == ([0, 1, 0, 0], 0)
    assert not proxy.context.sweep.members


def test_one_that_takes_too_long_is_closed(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(context={"head_timeout": 4.0})
    client = arrive(proxy, LINE[:9])
    proxy.pass_time(4.0)
    assert not client.aborted
    client.feed(LINE[9:12])
    proxy.pass_time(0.3)
    assert client.aborted
    proxy.pass_time(9.0)
    assert counts(proxy) == [0, 0, 1, 0]


@pytest.mark.parametrize("how", ["eof", "lost"])
def test_one_that_leaves_before_the_end(proxy: Proxy, how: str) -> None:
    client = arrive(proxy, LINE[:9])
    if how == "eof":
        assert client.feed_eof() is False
    else:
        client.lose()
    assert counts(proxy) == [0, 0, 0, 1]


def test_one_too_many_is_closed_at_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(context={"max_clients": 1})
    arrive(proxy)
    client = arrive(proxy, LINE)
    assert client.aborted
    assert (proxy.context.refused, counts(proxy)) == (1, [0, 0, 0, 0])
    client.protocol.pause_writing()
    client.protocol.resume_writing()


def test_the_process_ends(proxy: Proxy) -> None:
    client = arrive(proxy, LINE[:9])
    assert not client.protocol.retire(0.0), "nothing has begun"
    assert client.aborted
    assert client.feed_eof() is False
    assert counts(proxy) == [0, 0, 0, 0]


def test_a_client_that_is_aborted_by_its_protocol_hears_no_more(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.context.max_clients = 1

    def full(transport: Any) -> DownstreamConnection:
        proxy.context.clients += 1  # another came in between
        return DownstreamConnection(proxy.context, proxy.cluster)

    protocol = ProxiedConnection(proxy.context, proxy.cluster, partial(full, None))
    transport = MemoryTransport(protocol)
    proxy.clients.append(transport)
    transport.feed(LINE + request())
    assert transport.aborted
    assert transport.data == b""
    proxy.context.clients -= 1


# Towards endpoints


@pytest.mark.parametrize("version", [1, 2])
def test_each_request_has_a_connection_that_says_who_asks(proxy: Proxy, version: int) -> None:
    proxy.cluster.proxy_protocol = version
    hello = greeting(version, MemoryTransport(), None)
    client = proxy.client(request() + request("GET /2"))
    for number in (1, 2):
        endpoint = proxy.accept()
        assert endpoint.writes[0] == hello
        assert endpoint.writes[1].startswith(b"GET /")
        endpoint.feed(ok())
        assert endpoint.aborted
        assert client.data == ok() * number
    assert proxy.states[0].pool.open == 0


def test_a_retry_and_a_session_say_so_too(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2)
    proxy.cluster.proxy_protocol = 1
    client = proxy.client(request())
    proxy.accept().lose(ConnectionResetError())
    endpoint = proxy.accept()
    assert endpoint.data.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 8080\r\nGET ")
    endpoint.feed(ok())
    assert client.data == ok()

    sessions = make_proxy(scheme="tcp", idle_timeout=0.0)
    sessions.cluster.proxy_protocol = 1
    sessions.client(b"PING\r\n")
    assert sessions.accept().data == b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 8080\r\nPING\r\n"


def test_both_of_a_hedged_request_say_so(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, hedge_after=0.05)
    proxy.cluster.proxy_protocol = 1
    client = proxy.client(request())
    first = proxy.accept()
    proxy.clock.advance(0.05)
    proxy.run_timers()
    second = proxy.accept()
    second.feed(ok(b"second"))
    assert client.data == ok(b"second")
    assert first.data.startswith(greeting(1, client, None))
    assert second.data.startswith(greeting(1, client, None))
    assert (first.aborted, second.aborted) == (True, True)


def test_the_client_that_a_header_named_is_passed_on(proxy: Proxy) -> None:
    proxy.cluster.proxy_protocol = 1
    arrive(proxy, LINE + request())
    proxy.begun += 1
    endpoint = proxy.accept()
    assert endpoint.data.startswith(LINE)
    endpoint.feed(ok())


def test_connections_from_before_carry_no_other_request(proxy: Proxy) -> None:
    """It was turned on, or off, while they carried one."""
    client = proxy.client(request())
    before = proxy.accept()
    proxy.cluster.proxy_protocol = 2
    before.feed(ok())
    assert before.aborted
    client.feed(request())
    during = proxy.accept()
    proxy.cluster.proxy_protocol = 0
    during.feed(ok())
    assert during.aborted
    client.feed(request())
    proxy.accept().feed(ok())
    assert len(proxy.states[0].pool.idle) == 1


def test_whoever_waits_for_room_has_it_when_the_one_before_is_done(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1)
    proxy.cluster.proxy_protocol = 1
    first, second = proxy.client(request()), proxy.client(request())
    proxy.accept().feed(ok())
    proxy.accept().feed(ok())
    assert first.data == second.data == ok()


def test_what_a_client_without_an_address_is_told_as() -> None:
    transport = MemoryTransport(peername="", sockname="/run/a.sock")
    assert greeting(1, transport, None) == b"PROXY UNKNOWN\r\n"
    peer = Peer(("::1", 7))
    peer.reached = ("::1", 8)
    assert greeting(1, transport, peer) == b"PROXY TCP6 ::1 ::1 7 8\r\n"
