"""Handshakes on the way to an endpoint and from a client: who is told, what is counted, and what is left behind."""

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import FakeClock
from support.tls import ClientDouble, ServerDouble, TlsPeer, client_context, hands_shaken
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, error_of, request
from unit.proxy.manual_loop import ManualLoop

from sidecar.model import Outcome
from sidecar.net.tls import TlsTransport
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.downstream import RETIRE_QUIET
from sidecar.proxy.entrance import Entrance

MakeProxy = Callable[..., Proxy]


class Client:
    """What a listener would make: it has a `peer`, and counts itself."""

    peer: Any = None

    def __init__(self, context: ProxyContext) -> None:
        self.context = context

    def connection_made(self, transport: Any) -> None:
        self.context.clients += 1
        self.peer_at_start = self.peer

    def connection_lost(self, exc: Exception | None) -> None:
        self.context.clients -= 1


class Door:
    """One connection that a listener with TLS has accepted."""

    def __init__(self, **context: Any) -> None:
        self.clock = FakeClock()
        self.context = ProxyContext(ManualLoop(), self.clock, **context)  # type: ignore[arg-type] # doubles
        self.made: list[Client] = []
        self.server = ServerDouble()
        self.entrance = Entrance(self.context, self.server, self._make, speaks_http=True)
        self.tls = TlsTransport(self.context.loop, self.entrance)
        self.peer = TlsPeer(server=False, context=client_context())
        self.peer.take(b"")

    def _make(self) -> Client:
        self.made.append(Client(self.context))
        return self.made[-1]

    def accept(self) -> MemoryTransport:
        return MemoryTransport(self.tls)

    def shake(self, wire: MemoryTransport) -> None:
        wire.feed(self.peer.records())
        hands_shaken(wire, self.peer)


def test_a_client_is_counted_once_from_the_accept_on() -> None:
    door = Door()
    wire = door.accept()
    assert door.context.clients == 1
    assert door.entrance in door.context.sweep.members
    door.shake(wire)
    assert door.context.clients == 1
    assert door.entrance not in door.context.sweep.members
    wire.lose()
    assert door.context.clients == 0


def test_who_a_proxy_header_names_is_told_to_the_protocol_before_it_begins() -> None:
    door = Door()
    door.tls.peer = ("192.0.2.1", 4711)
    door.shake(door.accept())
    (client,) = door.made
    assert client.peer_at_start == ("192.0.2.1", 4711)


def test_one_too_many_is_refused_and_not_counted() -> None:
    door = Door(max_clients=0)
    wire = door.accept()
    assert wire.aborted
    wire.lose()
    assert (door.context.clients, door.context.refused) == (0, 1)
    assert not door.context.sweep.members
    assert not door.server.failures


def test_a_handshake_has_head_timeout() -> None:
    door = Door(head_timeout=10.0)
    wire = door.accept()
    door.clock.advance(9.9)
    door.context.sweep.run()
    assert not wire.aborted
    door.clock.advance(0.3)
    door.context.sweep.run()
    assert wire.aborted
    assert door.context.clients == 0
    assert isinstance(door.server.failures[0], TimeoutError)
    wire.lose()
    assert door.context.clients == 0


def test_who_has_just_come_may_go_on_while_the_process_would_like_to_end() -> None:
    door = Door()
    wire = door.accept()
    began = door.context.sweep.soon
    assert door.entrance.retire(began)
    assert not door.entrance.retire(began + RETIRE_QUIET)
    assert wire.aborted
    assert door.context.clients == 0
    assert not door.server.failures


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
def test_who_goes_during_the_handshake(error: Exception | None) -> None:
    door = Door()
    wire = door.accept()
    wire.lose(error)
    assert door.context.clients == 0
    assert not door.context.sweep.members
    assert len(door.server.failures) == 1


def test_who_is_not_wanted_hears_the_end() -> None:
    door = Door()
    door.server.refuse = ssl.SSLError("none of tls.identity")
    wire = door.accept()
    door.shake(wire)
    assert wire.closing
    assert not door.made
    assert door.context.clients == 0
    assert door.server.failures == [door.server.refuse]


# To endpoints


@pytest.fixture
def secure() -> ClientDouble:
    return ClientDouble()


def dialled(make_proxy: MakeProxy, secure: ClientDouble) -> tuple[Proxy, MemoryTransport, MemoryTransport]:
    """A request whose connection to an endpoint stands, with the handshake before it."""
    proxy = make_proxy(retries=0)
    proxy.cluster.tls = secure
    client = proxy.client(request())
    wire = proxy.connecting[0].establish()
    proxy.connecting[0].hand_over()
    return proxy, client, wire


def test_nothing_is_sent_before_the_handshake_is_over(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    proxy, client, wire = dialled(make_proxy, secure)
    proxy.upstreams.append(wire)
    peer = TlsPeer(server=True)
    hands_shaken(wire, peer)
    assert peer.received.startswith(b"GET ")
    assert proxy.cluster.stats.connects[0] == 1
    wire.feed(peer.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    assert client.data.endswith(b"ok")


def test_the_connect_time_out_covers_the_handshake(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    proxy, client, wire = dialled(make_proxy, secure)
    proxy.clock.advance(1.3)
    proxy.context.sweep.run()
    assert error_of(client.data) == (504, "connect_timeout")
    assert wire.aborted
    wire.lose()
    assert not secure.failures


def test_a_client_that_leaves_ends_the_handshake(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    proxy, client, wire = dialled(make_proxy, secure)
    client.feed_eof()
    assert wire.aborted
    wire.lose()
    assert proxy.cluster.limit.used == 0
    assert not secure.failures


def test_an_end_during_the_handshake_is_told_once(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    proxy, client, wire = dialled(make_proxy, secure)
    wire.feed_eof()
    wire.lose()
    assert error_of(client.data) == (502, "tls_failed")
    assert len(secure.failures) == 1
    assert proxy.cluster.stats.connects[3] == 1


def test_an_end_before_the_handshake_is_a_refused_connect(
    make_proxy: MakeProxy, secure: ClientDouble
) -> None:
    proxy = make_proxy(retries=0)
    proxy.cluster.tls = secure
    client = proxy.client(request())
    wire = proxy.connecting[0].establish()
    wire.feed_eof()
    proxy.connecting[0].hand_over()
    wire.lose()
    assert error_of(client.data) == (503, "connect_refused")
    assert not secure.failures


def test_what_no_handshake_can_be_made_for(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    def wrap(*_: object) -> None:
        raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")

    secure.wrap = wrap  # type: ignore[method-assign, assignment]
    _, client, wire = dialled(make_proxy, secure)
    assert error_of(client.data) == (502, "tls_failed")
    assert wire.aborted
    wire.lose()
    assert secure.failures


def test_a_certificate_that_is_not_accepted(make_proxy: MakeProxy, secure: ClientDouble) -> None:
    secure.refuse = ssl.SSLError("none of tls.identity")
    proxy, client, wire = dialled(make_proxy, secure)
    hands_shaken(wire, TlsPeer(server=True))
    assert error_of(client.data) == (502, "tls_failed")
    assert wire.closing
    (state,) = proxy.cluster.endpoints.values()
    assert state.attempts[Outcome.TLS_FAILED] == 1
