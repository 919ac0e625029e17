"""How a connection ends on the wire: what is cut short is reset, what is complete ends cleanly.

Real sockets, as only the kernel turns an abort into FIN or RST.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.clock import FakeClock
from support.ports import listening_socket
from support.transports import MemoryTransport

from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.proxy import Listener, ProxyContext
from sidecar.proxy.relay import reset
from sidecar.proxy.tcp import TcpSession

pytestmark = pytest.mark.uvloop

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NO_LINGER = struct.pack("ii", 1, 0)
OLD_REQUEST = b"GET / HTTP/1.0\r\n\r\n"  # whose response ends with the connection


class Stage:
    """A proxy on loopback before one endpoint whose behaviour is `answer`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.context = ProxyContext(asyncio.get_running_loop(), self.clock)  # type: ignore[arg-type]
        self.client: socket.socket
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, scheme: str, answer: Answer) -> None:
        """Put it up, and connect a client to it."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            self._tasks.append(asyncio.current_task())  # type: ignore[arg-type] # a connection has one
            await answer(reader, writer)

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        place = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])
        self.cluster = Cluster("api", scheme, UpstreamPolicy(idle_timeout=0.0, retries=0), self.clock)  # type: ignore[arg-type]
        self.cluster.apply(Snapshot("api", (place,), "static"))
        self._listener = Listener(self.context, self.cluster)
        await self._listener.adopt("127.0.0.1", listening_socket())
        self.client = socket.socket()
        self.client.setblocking(False)
        # Small, so that what a client does not read stays in the proxy; set before the handshake tells the window.
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(self.client, self._listener.bound[0])

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def read(self) -> tuple[bytes, str]:
        """Everything the client gets, and how it ends: `end` or `reset`."""
        got = b""
        while True:
            try:
                piece = await asyncio.get_running_loop().sock_recv(self.client, 65536)
            except ConnectionResetError:
                return got, "reset"
            if not piece:
                return got, "end"
            got += piece

    async def wait_for(self, look: Callable[[], object]) -> None:
        while not look():  # noqa: ASYNC110 - the state of the code under test has no event
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.client.close()
        self._listener.close()
        for member in tuple(self.context.sweep.members):
            member.shut()
        await self.wait_for(lambda: not self.context.clients)
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the aborted transports tell their protocols


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


# What `reset` does


class Socket:
    """Notes its options in the transport's story."""

    def __init__(self, story: list[object]) -> None:
        self._story = story

    def setsockopt(self, *option: object) -> None:
        self._story.append(option)


class Transport(MemoryTransport):
    """Keeps the order of things."""

    def __init__(self, **extra: object) -> None:
        super().__init__(**extra)
        self.story: list[object] = []

    def abort(self) -> None:
        self.story.append("abort")
        super().abort()


async def test_a_reset_is_an_abort_that_does_not_linger() -> None:
    transport = Transport()
    transport.extra["socket"] = Socket(transport.story)
    reset(transport)  # type: ignore[arg-type] # a transport by its methods
    assert transport.story == [(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER), "abort"]


@pytest.mark.parametrize("why", ["no socket", "closing"])
async def test_what_has_no_socket_any_more_is_only_aborted(why: str) -> None:
    transport = Transport()
    if why == "closing":
        transport.extra["socket"] = Socket(transport.story)
        transport.close()
    reset(transport)  # type: ignore[arg-type] # a transport by its methods
    assert transport.story == ["abort"]


# HTTP


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
    await writer.drain()
    writer.close()


async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    await writer.drain()
    writer.close()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nso far")
    await writer.drain()


async def test_a_broken_response_is_reset_for_a_client_that_reads_until_the_end(stage: Stage) -> None:
    """RFC 9112 8: without a length of its own the end of the connection would make it complete."""
    await stage.open("http", broken)
    await stage.send(OLD_REQUEST)
    got, ending = await stage.read()
    assert ending == "reset"
    assert got == b"" or got.endswith(b"half of it")
    assert stage.cluster.stats.request_counts() == [("GET", "2xx", "reset_after_headers", 1)]


async def test_a_whole_response_ends_cleanly(stage: Stage) -> None:
    await stage.open("http", whole)
    await stage.send(OLD_REQUEST)
    got, ending = await stage.read()
    assert got.endswith(b"\r\n\r\nall of it")
    assert ending == "end"


async def test_a_response_that_the_end_of_the_process_cuts_short_is_reset(stage: Stage) -> None:
    await stage.open("http", endless)
    await stage.send(OLD_REQUEST)
    assert (await asyncio.get_running_loop().sock_recv(stage.client, 65536)).startswith(b"HTTP/1.1 200 ")
    for member in tuple(stage.context.sweep.members):
        member.shut()
    assert (await stage.read())[1] == "reset"


# Sessions


async def test_a_reset_endpoint_is_a_reset_for_the_client(stage: Stage) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        writer.transport.abort()

    await stage.open("tcp", answer)
    await stage.send(b"hello")
    assert await stage.read() == (b"", "reset")
    assert stage.cluster.stats.sessions_active == 0


async def test_a_reset_client_is_a_reset_for_the_endpoint(stage: Stage) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        heard.put_nowait("hello")
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            heard.put_nowait("reset")
        else:
            heard.put_nowait("end")

    await stage.open("tcp", answer)
    await stage.send(b"hello")
    assert await heard.get() == "hello"
    stage.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    stage.client.close()
    assert await heard.get() == "reset"


async def test_clean_ends_stay_clean(stage: Stage) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await reader.read())
        writer.write(b"bye")
        writer.close()

    await stage.open("tcp", answer)
    await stage.send(b"hello")
    stage.client.shutdown(socket.SHUT_WR)
    assert await stage.read() == (b"bye", "end")
    assert await heard.get() == b"hello"


async def test_what_a_client_did_not_take_in_time_is_reset(stage: Stage) -> None:
    """The session ended well, but its last bytes are given up: that is no clean end for who has the first."""
    size = 60_000  # less than a write buffer's high-water mark, more than the kernel is told to keep
    may_answer = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await may_answer.wait()
        writer.write(b"x" * size)
        writer.close()

    await stage.open("tcp", answer)
    stage.client.shutdown(socket.SHUT_WR)
    members = stage.context.sweep.members
    await stage.wait_for(lambda: any(isinstance(member, TcpSession) and member.other for member in members))
    session = next(member for member in members if isinstance(member, TcpSession))
    kept: socket.socket = session.transport.get_extra_info("socket")
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    may_answer.set()
    await stage.wait_for(session.transport.is_closing)
    assert session.transport.get_write_buffer_size() > 0
    stage.clock.advance(1000.0)
    stage.context.sweep.run()
    got, ending = await stage.read()
    assert len(got) < size
    assert ending == "reset"
