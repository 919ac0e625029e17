"""Opening connections: addresses and names, refusals, time-outs, and ends at awkward moments."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.clock import FakeClock
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.dial import Dial

MakeProxy = Callable[..., Proxy]


class Asker:
    """Waits for what comes of a dial."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_connected(self, dial: Dial, connection: Any) -> None:
        self.answer.set_result(connection)

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        self.answer.set_result(outcome)


class Line(asyncio.Protocol):
    """A client's protocol that keeps its transport, and knows when it is gone."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def endpoint(host: str, port: int) -> EndpointState:
    cluster = Cluster("api", "tcp", UpstreamPolicy(), FakeClock())  # type: ignore[arg-type]
    cluster.apply(Snapshot("api", (Endpoint(host, port),), "static"))
    return next(iter(cluster.endpoints.values()))


@pytest.fixture(autouse=True)
async def resolver() -> AsyncIterator[None]:
    """asyncio looks names up in threads, which end with the test."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


def a_context() -> ProxyContext:
    return ProxyContext(asyncio.get_running_loop(), FakeClock())  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.uvloop
async def test_an_address_and_a_name_are_connected_to(host: str) -> None:
    context = a_context()
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        asker = Asker()
        dial = Dial(context, endpoint(host, server.sockets[0].getsockname()[1]), Line, 1.0, asker)
        assert dial in context.sweep.members
        line = await asker.answer
        assert isinstance(line, Line)
        assert dial not in context.sweep.members
        line.transport.close()
        await line.lost


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listens(host: str) -> None:
    context = a_context()
    with socket.socket() as unused:  # bound but not listening: nobody else can take the port meanwhile
        unused.bind(("127.0.0.1", 0))
        asker = Asker()
        Dial(context, endpoint(host, unused.getsockname()[1]), Line, 1.0, asker)
        assert await asker.answer is Outcome.CONNECT_REFUSED
    assert not context.sweep.members


@pytest.mark.parametrize("host", ["no-such-host.invalid", "." * 3, "x" * 70 + ".example"])
async def test_names_that_cannot_be_looked_up_are_refused_connections(host: str) -> None:
    """RFC 2606: .invalid never exists; labels end at 63 bytes and are not empty."""
    asker = Asker()
    Dial(a_context(), endpoint(host, 80), Line, 1.0, asker)
    assert await asker.answer is Outcome.CONNECT_REFUSED


async def test_a_socket_whose_protocol_cannot_be_made_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name's connection exists before the protocol does."""
    loop = asyncio.get_running_loop()
    opened: list[socket.socket] = []

    async def refuse(_factory: object, *, sock: socket.socket) -> None:
        opened.append(sock)
        raise ConnectionResetError

    monkeypatch.setattr(loop, "create_connection", refuse)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        asker = Asker()
        Dial(a_context(), endpoint("localhost", server.sockets[0].getsockname()[1]), Line, 1.0, asker)
        assert await asker.answer is Outcome.CONNECT_REFUSED
    assert [sock.fileno() for sock in opened] == [-1]


async def test_a_cancelled_dial_tells_nobody() -> None:
    context = a_context()
    asker = Asker()
    dial = Dial(context, endpoint("127.0.0.1", 9), Line, 1.0, asker)
    dial.retire()
    assert dial in context.sweep.members, "somebody's request is behind it"
    dial.cancel()
    dial.cancel()
    assert not context.sweep.members
    await asyncio.sleep(0)
    assert not asker.answer.done()


# At awkward moments, with the loop's turns in the test's hand


def test_a_client_that_goes_while_connecting_cancels_it(proxy: Proxy) -> None:
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    client.lose()
    assert attempt.cancelled
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]


def test_an_error_that_answers_the_cancellation_tells_nobody(proxy: Proxy) -> None:
    """Closing several half-open sockets may fail in its own way."""
    client = proxy.client(request())
    proxy.connecting[0].error_when_cancelled = OSError("too late")
    client.lose()
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]
    assert proxy.cluster.stats.connects == [0, 0, 0]


def test_cancelled_before_it_had_started(proxy: Proxy) -> None:
    client = proxy.client(request())
    client.lose()
    assert proxy.connecting == []


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_the_client_goes_between_connection_and_its_hand_over(make_proxy: MakeProxy, scheme: str) -> None:
    """The protocol is told of its transport one turn of the loop before the dial is: a cancel fits in between."""
    proxy = make_proxy(scheme=scheme)
    client = proxy.client(request())
    proxy.upstreams.append(proxy.connecting[0].establish())
    client.lose()
    assert proxy.upstreams[0].closing
    proxy.settle()

    assert proxy.cluster.limit.used == 0
    assert proxy.states[0].pool.open == 0


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_time_is_over_between_connection_and_its_hand_over(make_proxy: MakeProxy, scheme: str) -> None:
    """The late connection is nobody's: the next endpoint is tried, and what becomes of the late one is no matter."""
    proxy = make_proxy(endpoints=2, scheme=scheme, idle_timeout=0.0, connect_timeout=1.0)
    client = proxy.client(request())
    proxy.upstreams.append(proxy.connecting[0].establish())
    proxy.pass_time(1.2)
    proxy.settle()
    assert proxy.cluster.limit.used == 1, "the second endpoint's"
    second = proxy.accept()
    assert b"GET / " in second.data
    second.feed(ok())

    assert client.data == ok()
    assert [state.pool.open for state in proxy.states] == [0, 1]


def test_the_connect_time_out_is_answered_504(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(retries=0, connect_timeout=2.0)
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    proxy.pass_time(2.0)
    assert not attempt.cancelled, "never early"
    proxy.pass_time(0.1)

    assert attempt.cancelled
    assert error_of(client.data) == (504, "connect_timeout")
    assert proxy.cluster.stats.connects == [0, 0, 1]
    assert proxy.states[0].attempts[Outcome.CONNECT_TIMEOUT] == 1
