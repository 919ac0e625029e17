"""Opening connections: addresses and names, refusals, time-outs, and ends at awkward moments."""

import asyncio
import errno
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from support.clock import FakeClock
from support.ports import has_ipv6, listening_socket
from support.requirements import lacking
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.proxy import Listener
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.dial import Dial
from sidecar.proxy.resolve import FRESH_FOR
from sidecar.proxy.upstream import UpstreamConnection

MakeProxy = Callable[..., Proxy]


class Asker:
    """Waits for what comes of a dial."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.cluster = Cluster("api", "tcp", UpstreamPolicy(), FakeClock())  # type: ignore[arg-type]

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
    assert dial.retire(0.0)
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
    assert proxy.cluster.stats.connects == [0, 0, 0, 0]


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
    assert proxy.cluster.stats.connects == [0, 0, 1, 0]
    assert proxy.states[0].attempts[Outcome.CONNECT_TIMEOUT] == 1


# Names that are not answered


async def test_a_name_that_is_never_answered_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups take a few threads; however many dial a dead name, it takes one of them."""
    loop = asyncio.get_running_loop()
    clock = FakeClock()
    context = ProxyContext(loop, clock)  # type: ignore[arg-type]
    end = threading.Event()
    asked: list[str] = []

    def look_up(host: str, *_arguments: object, **_keywords: object) -> list[Any]:
        asked.append(host)
        if host != "known.example" or len(asked) > 1:
            end.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]

        async def dialled(host: str) -> None:
            asker = Asker()
            Dial(context, endpoint(host, port), Line, 1.0, asker)
            line = await asyncio.wait_for(asker.answer, 10.0)
            assert isinstance(line, Line), line
            line.transport.close()
            await line.lost

        try:
            await dialled("known.example")
            clock.advance(FRESH_FOR)
            dead = [Dial(context, endpoint("dead.example", port), Line, 1.0, Asker()) for _ in range(64)]
            await dialled("localhost")
            for _ in range(3):
                await dialled("known.example")
            assert sorted(asked) == ["dead.example", "known.example", "known.example"]
            for dial in dead:
                dial.cancel()
        finally:
            end.set()
            await loop.shutdown_default_executor()  # the look-ups, and what waits for them, end first
    await asyncio.sleep(0)


async def test_a_connection_to_a_name_wants_no_resolver_once_its_addresses_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop's `sock_connect` asks one, whose few threads other names may hold."""

    def asked(*_: object) -> None:
        raise AssertionError("asked a resolver")

    context = a_context()
    monkeypatch.setattr(context.loop, "sock_connect", asked)
    async with await context.loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
        asker = Asker()
        Dial(context, endpoint("localhost", server.sockets[0].getsockname()[1]), Line, 1.0, asker)
        line = await asker.answer
        assert isinstance(line, Line), line
        line.transport.close()
        await line.lost


# Shortages of our own

SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]


@pytest.mark.parametrize("number", SHORTAGES, ids=lambda number: errno.errorcode[number])
def test_a_shortage_of_our_own_is_overflow_and_not_the_endpoints_fault(
    make_proxy: MakeProxy, number: int
) -> None:
    proxy = make_proxy(endpoints=2, breaker_threshold=1, retries=3)
    client = proxy.client(request())
    proxy.connecting[0].refuse(OSError(number, "none left"))

    assert error_of(client.data) == (503, "overflow")
    told = json.loads(client.data.partition(b"\r\n\r\n")[2])
    assert told["message"] == "the proxy has no descriptor left"
    assert proxy.connecting == [], "no other endpoint, and not again: that would want one more"
    assert proxy.overflows == {"descriptors": 1}
    assert proxy.cluster.stats.connects == [0, 0, 0, 0]
    assert proxy.states[0].breaker.state.label == "closed"
    assert proxy.states[0].attempts[Outcome.LOCAL_SHORTAGE] == 1
    assert (proxy.states[0].in_flight, proxy.states[0].pool.open, proxy.cluster.limit.used) == (0, 0, 0)
    assert proxy.counted == [("GET", "5xx", "overflow", 1)]


def test_a_shortage_of_our_own_ends_a_session_as_overflow(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, scheme="tcp", breaker_threshold=1, retries=3)
    client = proxy.client(b"hello")
    proxy.connecting[0].refuse(OSError(errno.EMFILE, "Too many open files"))

    assert client.aborted
    assert proxy.connecting == []
    assert proxy.sessions == {"overflow": 1}
    assert proxy.overflows == {"descriptors": 1}
    assert proxy.cluster.stats.connects == [0, 0, 0, 0], "as for http"
    assert proxy.states[0].breaker.state.label == "closed"
    assert proxy.states[0].attempts[Outcome.LOCAL_SHORTAGE] == 1
    assert (proxy.states[0].in_flight, proxy.states[0].pool.open, proxy.cluster.limit.used) == (0, 0, 0)


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_a_probe_that_met_a_shortage_of_our_own_was_not_sent(make_proxy: MakeProxy, scheme: str) -> None:
    proxy = make_proxy(
        scheme=scheme, breaker_threshold=1, breaker_open_for=10.0, breaker_jitter=0.0, retries=0
    )
    proxy.client(request())
    proxy.refuse()
    proxy.clock.advance(10.0)
    proxy.client(request())
    proxy.connecting[0].refuse(OSError(errno.EMFILE, "Too many open files"))
    assert proxy.states[0].breaker.state.label == "half_open"
    proxy.client(request())
    proxy.accept().feed(ok())
    assert proxy.states[0].breaker.state.label == "closed"


async def test_a_shortage_while_dialling_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("aiohappyeyeballs.start_connection", none_left)
    asker = Asker()
    Dial(a_context(), endpoint("localhost", 80), Line, 1.0, asker)
    assert await asker.answer is Outcome.LOCAL_SHORTAGE


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_an_ipv6_endpoint_on_a_host_without_ipv6_leaves_the_others_to_be_tried(
    make_proxy: MakeProxy, scheme: str
) -> None:
    """9. Where IPv6 is switched off, connecting to ::1 says that there is no such address: no port is short."""
    proxy = make_proxy(endpoints=0, scheme=scheme)
    proxy.cluster.apply(Snapshot("api", (Endpoint("::1", 80), Endpoint("10.0.0.1", 80)), "static"))
    client = proxy.client(request())
    assert proxy.connecting[0].host == "::1"
    proxy.connecting[0].refuse(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"))
    assert not client.data
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"]
    proxy.accept().feed(ok())
    assert client.data == ok()


# A proxy that would be its own endpoint


@pytest.mark.parametrize("scheme", ["http", "tcp"])
@pytest.mark.parametrize("spelling", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_connection_that_leads_back_here_is_refused(
    make_proxy: MakeProxy, scheme: str, spelling: str
) -> None:
    proxy = make_proxy(scheme=scheme, retries=0)
    proxy.context.listening.add(("127.0.0.1", 8080))
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    endpoint.extra["peername"] = (spelling, 8080, 0, 0)
    proxy.upstreams.append(endpoint)
    attempt.hand_over()

    assert endpoint.closing
    assert not endpoint.data, "nothing was sent round the circle"
    if scheme == "http":
        assert error_of(client.data) == (503, "connect_refused")
    else:
        assert proxy.sessions == {"connect_failed": 1}
    assert proxy.cluster.stats.connects == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("bind", "place"),
    [
        ("127.0.0.1", ("127.0.0.1", 8081)),
        ("127.0.0.1", ("127.0.0.2", 8080)),
        ("0.0.0.0", ("10.0.0.1", 8080)),
        ("127.0.0.1", None),  # a connection that has no address
    ],
)
def test_another_port_or_address_is_an_endpoint_like_any(
    make_proxy: MakeProxy, bind: str, place: tuple[str, int] | None
) -> None:
    proxy = make_proxy()
    proxy.context.listening.add((bind, 8080))
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    endpoint.extra.update(peername=place, sockname=("10.0.0.9", 40000))
    proxy.upstreams.append(endpoint)
    attempt.hand_over()
    endpoint.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize(
    ("bind", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("0.0.0.0", "127.0.0.1"),  # a wildcard takes in every address of this machine
        ("::", "::1"),
    ],
)
@pytest.mark.uvloop
async def test_a_listener_of_our_own_is_known_by_the_connection(bind: str, host: str) -> None:
    if ":" in bind + host and not has_ipv6():
        lacking("no IPv6 on this machine")
    context = a_context()
    cluster = Cluster("api", "tcp", UpstreamPolicy(), FakeClock())  # type: ignore[arg-type]
    listener = Listener(context, cluster)
    await listener.adopt(bind, listening_socket(bind))
    try:
        assert (bind, listener.bound[0][1]) in context.listening
        asker = Asker()
        Dial(context, endpoint(host, listener.bound[0][1]), Line, 1.0, asker)
        answer = await asker.answer
        if isinstance(answer, Line):
            answer.transport.close()
        assert answer is Outcome.CONNECT_REFUSED
    finally:
        listener.close()
        await until(lambda: not context.clients)
        await asyncio.sleep(0)


async def until(look: Callable[[], object]) -> None:
    """Wait for `look` to give something true; the test's time limit is the bound."""
    while not look():  # noqa: ASYNC110 - the state of the code under test has no event
        await asyncio.sleep(0.001)


def test_a_dial_that_is_cancelled_as_it_connects_leaves_nothing() -> None:
    """uvloop closes the socket of a protocol that is made then, and never tells it of its end."""

    async def scenario() -> None:
        context = ProxyContext(asyncio.get_running_loop(), Clock())
        dials: list[Dial] = []

        class Connection(UpstreamConnection):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                dials[0].cancel()

        with socket.create_server(("127.0.0.1", 0)) as server:
            target = endpoint("127.0.0.1", server.getsockname()[1])
            made = asyncio.Event()

            def factory() -> Connection:
                made.set()
                return Connection(context, target)

            dials.append(Dial(context, target, factory, 5.0, Asker()))
            await made.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not context.sweep.members

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
