"""Localhost ports: what is made of a connection, and what stays when a listener goes."""

import asyncio
import socket
from typing import Any

import pytest
from support.clock import FakeClock
from support.ports import listening_socket

from sidecar.cluster import Cluster
from sidecar.model import UpstreamPolicy
from sidecar.proxy import Listener, ProxyContext


def listener(loop: Any, scheme: str = "http") -> Listener:
    clock: Any = FakeClock()
    return Listener(ProxyContext(loop, clock), Cluster("api", scheme, UpstreamPolicy(), clock))


@pytest.mark.parametrize(("scheme", "answers"), [("http", True), ("redis", False), ("tcp", False)])
@pytest.mark.uvloop
async def test_http_is_answered_per_request_and_the_rest_per_connection(scheme: str, answers: bool) -> None:
    """Without endpoints: http says so, a session just ends."""
    made = listener(asyncio.get_running_loop(), scheme)
    await made.adopt("127.0.0.1", listening_socket())
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


@pytest.mark.every_loop
async def test_another_one_takes_over_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the scheme of an upstream changes: nobody is refused, and who connects meanwhile waits."""
    from sidecar.net.network import close_network, open_network

    loop = asyncio.get_running_loop()
    clock: Any = FakeClock()
    context = ProxyContext(loop, clock, open_network(loop))
    with listening_socket() as kept:
        place = kept.getsockname()
        one = Listener(context, Cluster("api", "tcp", UpstreamPolicy(), clock))
        await one.adopt("127.0.0.1", kept.dup())
        assert context.listening == {place} == set(one.bound)
        one.close()
        assert not context.listening
        await asyncio.sleep(0.01)  # whoever would accept is to have had its turn
        reader, writer = await asyncio.open_connection(*place)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        other = Listener(context, Cluster("api", "http", UpstreamPolicy(), clock))
        await other.adopt("127.0.0.1", kept.dup())
        assert context.listening == {place}
        async with asyncio.timeout(5.0):
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await writer.wait_closed()
        other.close()
        async with asyncio.timeout(5.0):
            while context.clients:  # noqa: ASYNC110 - the state of the code under test has no event
                await asyncio.sleep(0)
    await asyncio.sleep(0)
    close_network(context.network)


async def test_sockets_are_served_by_the_network() -> None:
    """Where connections are to come from is not the loop's to say."""

    class Server:
        def close(self) -> None:
            pass

    class Network:
        async def create_server(self, _factory: object, *, sock: socket.socket, backlog: int) -> Any:
            taken.append(sock)
            return Server()

    taken: list[socket.socket] = []
    clock: Any = FakeClock()
    context = ProxyContext(asyncio.get_running_loop(), clock, Network())
    made = Listener(context, Cluster("api", "http", UpstreamPolicy(), clock))
    with listening_socket() as bound:
        await made.adopt("127.0.0.1", bound)
        assert taken == [bound]
        assert made.bound == [bound.getsockname()]


async def test_a_socket_that_cannot_be_served_is_closed() -> None:
    class Network:
        async def create_server(self, _factory: object, **_options: object) -> Any:
            raise OSError(28, "No space left on device")

    clock: Any = FakeClock()
    context = ProxyContext(asyncio.get_running_loop(), clock, Network())
    made = Listener(context, Cluster("api", "http", UpstreamPolicy(), clock))
    bound = listening_socket()
    with pytest.raises(OSError, match="No space left"):
        await made.adopt("127.0.0.1", bound)
    assert bound.fileno() == -1
    assert made.bound == []
    assert not context.listening
