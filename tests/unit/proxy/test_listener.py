"""Localhost ports: what is made of a connection, and what stays when a listener goes."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.ports import listening_socket

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.net.unix_sockets import bind, remove
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


@pytest.mark.every_loop
async def test_a_unix_socket_is_listened_on_and_known_again(tmp_path: Path) -> None:
    """And what leads back to it is refused, as to a port."""
    from sidecar.net.network import close_network, open_network

    loop = asyncio.get_running_loop()
    clock: Any = FakeClock()
    context = ProxyContext(loop, clock, open_network(loop))
    path = tmp_path / "a.sock"
    cluster = Cluster("api", "http", UpstreamPolicy(), clock)
    cluster.apply(Snapshot("api", (Endpoint(f"unix:{path}", 0),), "static"))
    bound, file = bind(str(path), 0o600, 8)
    made = Listener(context, cluster)
    await made.adopt(f"unix:{path}", bound)
    assert context.listening == {(f"unix:{path}", 0)} == set(made.bound)
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(5.0):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"connect_refused" in await reader.read()
    writer.close()
    await writer.wait_closed()
    made.close()
    assert not context.listening
    assert path.exists(), "the file is whoever has bound it to remove"
    remove(str(path), file)
    async with asyncio.timeout(5.0):
        while context.clients:  # noqa: ASYNC110 - the state of the code under test has no event
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    close_network(context.network)


@pytest.mark.every_loop
@pytest.mark.parametrize("scheme", ["http", "tcp"])
async def test_requests_and_sessions_from_socket_to_socket(tmp_path: Path, scheme: str) -> None:
    from sidecar.net.network import close_network, open_network

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    asked: list[bytes] = []
    loop = asyncio.get_running_loop()
    context = ProxyContext(loop, Clock(), open_network(loop))
    far = f"@sidecar-far-{os.getpid()}"
    bound, _ = bind(far, 0o600, 8)
    server = await asyncio.start_unix_server(answer, sock=bound)
    cluster = Cluster("api", scheme, UpstreamPolicy(), context.clock)
    cluster.apply(Snapshot("api", (Endpoint(f"unix:{far}", 0),), "static"))
    path = str(tmp_path / "a.sock")
    near, file = bind(path, 0o600, 8)
    made = Listener(context, cluster)
    await made.adopt(f"unix:{path}", near, accept_proxy=True)
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(5.0):
        writer.write(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\nok")
        writer.close()
        await writer.wait_closed()
        while context.clients:  # noqa: ASYNC110 - the state of the code under test has no event
            await asyncio.sleep(0)
    assert (b"Host: localhost" if scheme == "http" else b"Host: a") in asked[0]
    made.close()
    remove(path, file)
    server.close()
    await server.wait_closed()
    for member in tuple(context.sweep.members):
        member.shut()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    close_network(context.network)
