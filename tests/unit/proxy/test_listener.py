"""Localhost ports: binding, the reasons why not, and what is made of a connection."""

import asyncio
import errno
import socket
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.errors import StartError
from sidecar.model import UpstreamPolicy
from sidecar.proxy import Listener, ProxyContext
from sidecar.proxy.listener import BACKLOG

REFUSING = OSError(errno.EADDRINUSE, "in use")


class BindingLoop:
    """A loop whose `create_server` succeeds or fails as told, address by address."""

    def __init__(self, **outcomes: OSError | None) -> None:
        self.outcomes = {name.replace("_", ":"): outcome for name, outcome in outcomes.items()}
        self.asked: list[tuple[str, int, int]] = []
        self.servers: list[BoundServer] = []

    async def create_server(self, _factory: object, host: str, port: int, *, backlog: int) -> "BoundServer":
        self.asked.append((host, port, backlog))
        outcome = self.outcomes.get("v6" if ":" in host else "v4")
        if outcome is not None:
            raise outcome
        self.servers.append(BoundServer(host, port or 5555))
        return self.servers[-1]


class BoundServer:
    """What `create_server` gives, as far as a listener looks at it."""

    def __init__(self, host: str, port: int) -> None:
        self.name = (host, port)
        self.closed = False

    @property
    def sockets(self) -> list["BoundServer"]:
        return [self]

    def getsockname(self) -> tuple[str, int]:
        return self.name

    def close(self) -> None:
        self.closed = True


def listener(loop: Any, addresses: list[str], port: int, scheme: str = "http") -> Listener:
    clock: Any = FakeClock()
    return Listener(
        ProxyContext(loop, clock), Cluster("api", scheme, UpstreamPolicy(), clock), addresses, port
    )


async def test_every_address_is_bound_to_one_port() -> None:
    loop = BindingLoop()
    made = listener(loop, ["127.0.0.1", "::1"], 8080)
    await made.start()
    assert made.bound == [("127.0.0.1", 8080), ("::1", 8080)]
    assert loop.asked == [("127.0.0.1", 8080, BACKLOG), ("::1", 8080, BACKLOG)]
    made.close()
    assert all(server.closed for server in loop.servers)


async def test_a_free_port_is_the_same_on_every_address() -> None:
    made = listener(BindingLoop(), ["127.0.0.1", "::1"], 0)
    await made.start()
    assert made.bound == [("127.0.0.1", 5555), ("::1", 5555)]


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_host_without_ipv6_is_no_error(number: int) -> None:
    """9."""
    made = listener(BindingLoop(v6=OSError(number, "no IPv6")), ["127.0.0.1", "::1"], 8080)
    await made.start()
    assert made.bound == [("127.0.0.1", 8080)]


async def test_an_ipv6_address_alone_has_to_be_there() -> None:
    made = listener(BindingLoop(v6=OSError(errno.EADDRNOTAVAIL, "no IPv6")), ["::1"], 8080)
    with pytest.raises(StartError, match=r"cannot listen on \[::1\]:8080 for api: .*no such address"):
        await made.start()


async def test_a_port_that_is_taken_on_ipv6_alone_is_an_error_and_nothing_stays_bound() -> None:
    loop = BindingLoop(v6=REFUSING)
    made = listener(loop, ["127.0.0.1", "::1"], 8080)
    with pytest.raises(StartError, match="already in use"):
        await made.start()
    assert [server.closed for server in loop.servers] == [True]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (REFUSING, "address already in use; stop what listens there, or give the upstream another port"),
        (OSError(errno.EACCES, "denied"), "permission denied; ports below 1024 need a privilege"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "cannot assign requested address; this host has no"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files; see sidecar.bind"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known; see sidecar.bind"),
    ],
)
async def test_errors_say_where_for_whom_why_and_what_to_do(error: OSError, said: str) -> None:
    with pytest.raises(StartError) as caught:
        await listener(BindingLoop(v4=error), ["127.0.0.1"], 80).start()
    assert str(caught.value).startswith(f"cannot listen on 127.0.0.1:80 for api: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.uvloop
async def test_a_real_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1:{port} for api: address already in use"):
            await listener(asyncio.get_running_loop(), ["127.0.0.1"], port).start()


@pytest.mark.parametrize(("scheme", "answers"), [("http", True), ("redis", False), ("tcp", False)])
@pytest.mark.uvloop
async def test_http_is_answered_per_request_and_the_rest_per_connection(scheme: str, answers: bool) -> None:
    """Without endpoints: http says so, a session just ends."""
    made = listener(asyncio.get_running_loop(), ["127.0.0.1"], 0, scheme)
    await made.start()
    reader, writer = await asyncio.open_connection(*made.bound[0])
    data = b""
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = await reader.read()
    except ConnectionResetError:
        pass
    finally:
        writer.close()
        made.close()
    assert data.startswith(b"HTTP/1.1 503 ") is answers
    assert data == b"" or answers
    while made._context.clients:  # noqa: ASYNC110 - the state of the code under test has no event
        await asyncio.sleep(0)


async def test_a_socket_of_somebody_elses_is_served_by_the_network_too() -> None:
    """A worker's ports: where connections are to come from is not the loop's to say."""

    class Network:
        async def create_server(self, _factory: object, *, sock: socket.socket, backlog: int) -> Any:
            taken.append(sock)
            return BoundServer("127.0.0.1", 5555)

    taken: list[socket.socket] = []
    clock: Any = FakeClock()
    context = ProxyContext(BindingLoop(), clock, Network())  # type: ignore[arg-type]
    made = Listener(context, Cluster("api", "http", UpstreamPolicy(), clock), (), 0)
    with socket.socket() as bound:
        await made.adopt("127.0.0.1", bound)
        assert taken == [bound]
    assert made.bound == [("127.0.0.1", 5555)]
