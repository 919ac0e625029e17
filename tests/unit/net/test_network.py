"""Sockets and loops of the data path: what the proxy relies on, whoever brings it.

Real sockets on loopback, over asyncio's loop, uvloop's, and the one that the proxy runs on. In pure Python the
transports are the loop's own, so that the tests say what holds of any; compiled they are the reactor's.
"""

import asyncio
import gc
import hashlib
import importlib
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.net.network import close_network, new_event_loop, open_network
from sidecar.net.receiver import Receiver
from sidecar.version import is_compiled

COMPILED = is_compiled()
compiled_only = pytest.mark.skipif(not COMPILED, reason="the compiled build's own")

MIB = 1 << 20
HIGH_WATER = 65536
NO_LINGER = struct.pack("ii", 1, 0)
SMALL = 4096  # of kernel buffers: little is on its way unseen
BODY = bytes(range(251)) * (MIB // 251)  # no period that a lost or doubled block would fit into

every_loop = pytest.mark.every_loop


class Side:
    """A protocol that keeps what it is told. then: what to do at an event, by its name, once."""

    def __init__(self, *, keep: bool = True, **then: Callable[["Side"], object]) -> None:
        self.keep = keep
        self.then = then
        self.data = bytearray()
        self.events: list[str] = []
        self.lost: list[Exception | None] = []
        self.spliced_bytes = 0
        self.full = False
        self.transport: Any
        self._news = asyncio.Event()

    async def until(self, look: Callable[[], object]) -> None:
        """Wait until `look` sees something, which only an event brings."""
        async with asyncio.timeout(20):
            while not look():
                self._news.clear()
                await self._news.wait()

    def _happened(self, event: str) -> None:
        self.events.append(event)
        self._news.set()
        act = self.then.pop(event, None)
        if act is not None:
            act(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._happened("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._happened("data")

    def spliced(self, size: int) -> None:
        self.spliced_bytes += size
        self._happened("spliced")

    def eof_received(self) -> bool:
        self._happened("eof")
        return self.keep

    def pause_writing(self) -> None:
        self.full = True
        self._happened("full")

    def resume_writing(self) -> None:
        self.full = False
        self._happened("free")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self._happened("lost")


class Net:
    """One network, a server on it, and plain sockets that play the other side."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.network = open_network(self.loop)
        self.sides: list[Side] = []
        self.problems: list[dict[str, Any]] = []
        self._servers: list[Any] = []
        self._sockets: list[socket.socket] = []
        self._news = asyncio.Event()
        self.loop.set_exception_handler(self._note_problem)

    def _note_problem(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(context)
        self._news.set()

    async def problem(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            await self._news.wait()
        return self.problems[0]

    async def serve(self, make: Callable[[], Side] = Side, buffers: int = 0) -> tuple[str, int]:
        def factory() -> Side:
            self.sides.append(make())
            self._news.set()
            return self.sides[-1]

        listener = socket.socket()
        if buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        self._servers.append(await self.network.create_server(factory, sock=listener, backlog=100))
        address: tuple[str, int] = self._servers[-1].sockets[0].getsockname()
        return address

    def stop_serving(self) -> None:
        while self._servers:
            self._servers.pop().close()

    def plain(self, buffers: int = 0) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        if buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self._sockets.append(sock)
        return sock

    async def peer(self, make: Callable[[], Side] = Side, buffers: int = 0) -> tuple[Side, socket.socket]:
        """A connection that was accepted, and the socket at its other end."""
        address = await self.serve(make, buffers)
        sock = self.plain(buffers)
        before = len(self.sides)
        await self.loop.sock_connect(sock, address)
        async with asyncio.timeout(20):
            while len(self.sides) == before or not self.sides[-1].events:  # noqa: ASYNC110 - none to wait for
                await asyncio.sleep(0)
        return self.sides[-1], sock

    async def dialled(self, side: Side, buffers: int = 0) -> socket.socket:
        """`side` gets a connection that it opens itself; the socket at its other end."""
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            if buffers:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            await self.network.create_connection(lambda: side, *listener.getsockname())
            sock, _ = listener.accept()
        sock.setblocking(False)
        self._sockets.append(sock)
        self.sides.append(side)
        return sock

    async def read(self, sock: socket.socket, size: int) -> bytes:
        """So many bytes, or what there is before the end."""
        data = bytearray()
        async with asyncio.timeout(30):
            while len(data) < size:
                piece = await self.loop.sock_recv(sock, min(MIB, size - len(data)))
                if not piece:
                    break
                data += piece
        return bytes(data)

    async def read_end(self, sock: socket.socket) -> bytes:
        return await self.read(sock, sys.maxsize)

    async def send(self, sock: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(30):
            await self.loop.sock_sendall(sock, data)

    async def close(self) -> None:
        self.stop_serving()
        for side in self.sides:
            if side.events and not side.lost:
                side.transport.abort()
        for side in self.sides:
            if side.events:
                await side.until(lambda side=side: side.lost)  # type: ignore[misc]
        close_network(self.network)
        for sock in self._sockets:
            sock.close()
        for _ in range(3):  # the server's own close is told in a later turn
            await asyncio.sleep(0)
        assert [len(side.lost) for side in self.sides if side.events] == [1] * len(
            [side for side in self.sides if side.events]
        )


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    """Everything of it ends with the test, each connection exactly once."""
    made = Net()
    yield made
    await made.close()


def connected(net: Net, address: tuple[str, int]) -> socket.socket:
    """In the listener's queue, without a turn of the loop."""
    sock = net.plain()
    sock.setblocking(True)
    sock.connect(address)
    sock.setblocking(False)
    return sock


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()


# Both ways, and the ends of each


@every_loop
async def test_what_is_sent_before_and_after_the_accept_arrives_in_order(net: Net) -> None:
    address = await net.serve()
    sock = net.plain()
    await net.loop.sock_connect(sock, address)
    sock.send(b"one ")  # before the loop had a turn to accept it
    while not net.sides:  # noqa: ASYNC110 - which protocol to wait for is not known yet
        await asyncio.sleep(0)
    side = net.sides[0]
    await side.until(lambda: side.data == b"one ")
    sock.send(b"two")
    await side.until(lambda: side.data == b"one two")
    side.transport.write(b"answer")
    assert await net.read(sock, 6) == b"answer"


@every_loop
async def test_a_connection_that_is_opened(net: Net) -> None:
    side = Side()
    sock = await net.dialled(side)
    side.transport.write(b"asked")
    assert await net.read(sock, 5) == b"asked"
    sock.send(b"answered")
    await side.until(lambda: side.data == b"answered")
    assert side.transport.get_extra_info("peername") == sock.getsockname()
    assert side.transport.get_extra_info("sockname") == sock.getpeername()
    assert side.transport.get_extra_info("socket").fileno() >= 0
    assert side.transport.get_extra_info("nothing", 5) == 5


@every_loop
async def test_a_refused_connection_is_an_oserror(net: Net) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await net.network.create_connection(Side, *nobody.getsockname())


class Told:
    """What a connector says, once."""

    def __init__(self) -> None:
        self.news: list[tuple[Any, Any, OSError | None]] = []
        self._came = asyncio.Event()

    def __call__(self, transport: Any, protocol: Any, error: OSError | None) -> None:
        self.news.append((transport, protocol, error))
        self._came.set()

    async def once(self) -> tuple[Any, Any, OSError | None]:
        async with asyncio.timeout(20):
            await self._came.wait()
        assert len(self.news) == 1
        return self.news[0]


@compiled_only
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@every_loop
async def test_a_connection_that_is_opened_without_a_coroutine(net: Net, host: str) -> None:
    with closing(
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    ) as server:
        side, told = Side(), Told()
        net.sides.append(side)
        net.network.connect_to(lambda: side, host, server.getsockname()[1], told)
        assert not told.news, "it is told later"
        assert await told.once() == (side.transport, side, None)
        with closing(server.accept()[0]) as sock:
            assert sock.getpeername() == side.transport.get_extra_info("sockname")
            side.transport.write(b"asked")
            assert sock.recv(5) == b"asked"
            sock.send(b"answered")
            await side.until(lambda: side.data == b"answered")


@compiled_only
@every_loop
async def test_a_refused_connect_tells_its_error(net: Net) -> None:
    told = Told()
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        net.network.connect_to(Side, *nobody.getsockname(), told)
        transport, protocol, error = await told.once()
    assert transport is None
    assert protocol is None
    assert isinstance(error, ConnectionRefusedError)


@compiled_only
@every_loop
async def test_an_address_that_only_the_resolver_reads_is_not_connected_to(net: Net) -> None:
    assert net.network.connect_to(Side, "fe80::1%lo", 80, Told()) is None


@compiled_only
@every_loop
async def test_a_cancelled_connect_tells_nothing_and_closes(net: Net) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        told = Told()
        connector = net.network.connect_to(Side, *server.getsockname(), told)
        connector.cancel()
        connector.cancel()
        with closing(server.accept()[0]) as sock:
            sock.setblocking(False)
            assert await net.read_end(sock) == b""
        assert not told.news


@compiled_only
@every_loop
async def test_a_connect_that_is_cancelled_while_it_is_ready(net: Net) -> None:
    """It is freed at once, while its event is among those that are being served."""
    connectors: list[Any] = []

    def cancel(_: Side) -> None:
        while connectors:
            connectors.pop().cancel()
        gc.collect()

    side, sock = await net.peer(lambda: Side(data=cancel))
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        told = Told()
        sock.send(b"x")  # ready before they are
        connectors += [net.network.connect_to(Side, *server.getsockname(), told) for _ in range(8)]
        await side.until(lambda: side.data)
    assert not connectors
    assert not told.news


@compiled_only
@every_loop
@pytest.mark.parametrize("where", ["factory", "connection_made"])
async def test_a_protocol_that_fails_is_reported_and_told_and_its_connection_closed(
    net: Net, where: str
) -> None:
    def fail(*_: object) -> Side:
        raise RuntimeError("no protocol")

    factory = fail if where == "factory" else lambda: Side(made=fail)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        told = Told()
        net.network.connect_to(factory, *server.getsockname(), told)
        assert str((await net.problem())["exception"]) == "no protocol"
        transport, protocol, error = await told.once()
        assert transport is None
        assert protocol is None
        assert isinstance(error, OSError)
        with closing(server.accept()[0]) as sock:
            sock.setblocking(False)
            assert await net.read_end(sock) == b""


@compiled_only
@every_loop
async def test_connects_that_fail_at_once_leave_the_loop_its_turns(net: Net) -> None:
    """Whoever tries again when it is told is told again, and timers go on."""
    tries = 0

    def again(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 100_000:
            net.network.connect_to(Side, "255.255.255.255", 1, again)

    again()
    async with asyncio.timeout(20):
        await asyncio.sleep(0.001)
    assert 0 < tries < 100_000
    tries = 100_000


@compiled_only
@pytest.mark.parametrize("host", ["127.0.0.1\0x", "h\u00f6st"])
@every_loop
async def test_what_is_no_address_is_not_connected_to(net: Net, host: str) -> None:
    assert net.network.connect_to(Side, host, 80, Told()) is None
    with pytest.raises(OverflowError):
        net.network.connect_to(Side, "127.0.0.1", 65536 + 80, Told())


@compiled_only
def test_a_reactor_that_cannot_be_made_closes_nothing() -> None:
    module = importlib.import_module("sidecar.net.reactor")
    with pytest.raises(TypeError):
        module.Reactor()
    gc.collect()
    os.fstat(0)


@every_loop
async def test_a_receiver_hands_over_while_it_receives(net: Net) -> None:
    """As HTTP does after 101: what comes next is the other's, and so is the end."""

    class First(Receiver):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.set_protocol(second)
            second.connection_made(self.transport)
            second.data_received(data.upper())

    second = Side(keep=False)
    net.sides.append(second)
    made: list[First] = []

    def factory() -> First:
        made.append(First())
        return made.pop()

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        await net.network.create_connection(factory, *server.getsockname())
        with closing(server.accept()[0]) as sock:
            sock.send(b"one ")
            await second.until(lambda: second.data == b"ONE ")
            sock.send(b"two")
            await second.until(lambda: second.data == b"ONE two")
    await second.until(lambda: second.lost)


@every_loop
async def test_half_closes_pass_one_by_one(net: Net) -> None:
    side, sock = await net.peer()
    sock.send(b"last")
    sock.shutdown(socket.SHUT_WR)
    await side.until(lambda: "eof" in side.events)
    assert side.data == b"last"
    side.transport.write(b"still ")
    side.transport.write(b"open")
    side.transport.write_eof()
    assert await net.read_end(sock) == b"still open"
    assert not side.lost
    side.transport.close()
    await side.until(lambda: side.lost == [None])


@every_loop
async def test_an_end_that_nobody_wants_to_outlive_closes(net: Net) -> None:
    side, sock = await net.peer(lambda: Side(keep=False))
    sock.shutdown(socket.SHUT_WR)
    await side.until(lambda: side.lost == [None])
    assert await net.read_end(sock) == b""


@every_loop
async def test_a_reset_is_an_error(net: Net) -> None:
    side, sock = await net.peer()
    sock.send(b"x")
    await side.until(lambda: side.data)
    reset(sock)
    await side.until(lambda: side.lost)
    assert isinstance(side.lost[0], ConnectionResetError)
    assert "eof" not in side.events


@every_loop
async def test_a_reset_is_an_error_to_who_writes_and_does_not_read(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    side.transport.pause_reading()
    side.transport.write(BODY)
    await side.until(lambda: side.full)
    reset(sock)
    await side.until(lambda: side.lost)
    assert isinstance(side.lost[0], ConnectionError)


@every_loop
async def test_paused_nothing_is_told_and_resumed_everything(net: Net) -> None:
    side, sock = await net.peer()
    sock.send(b"a")
    await side.until(lambda: side.data)
    side.transport.pause_reading()
    sock.send(b"b")
    sock.shutdown(socket.SHUT_WR)
    for _ in range(20):
        await asyncio.sleep(0)
    assert side.events == ["made", "data"]
    side.transport.resume_reading()
    await side.until(lambda: "eof" in side.events)
    assert side.data == b"ab"


@every_loop
async def test_paused_from_the_start(net: Net) -> None:
    if "uvloop" in type(net.loop).__module__ and not COMPILED:
        pytest.skip("uvloop reads on: it starts to read after connection_made, whatever that said")
    side, sock = await net.peer(lambda: Side(made=lambda side: side.transport.pause_reading()))
    sock.send(b"a")
    for _ in range(20):
        await asyncio.sleep(0)
    assert side.events == ["made"]
    side.transport.resume_reading()
    await side.until(lambda: side.data == b"a")


# Writing


@every_loop
async def test_everything_of_a_heap_comes_also_when_nothing_follows(net: Net) -> None:
    """epoll tells once that something has come, and one read takes 80 KiB of it."""
    side, sock = await net.peer(lambda: Side(made=lambda side: side.transport.pause_reading()))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    sent = sock.send(BODY)
    assert sent > 3 * 81920
    side.transport.resume_reading()
    await side.until(lambda: len(side.data) == sent)
    assert side.data == BODY[:sent]


@every_loop
async def test_an_end_that_came_with_the_last_bytes_is_told(net: Net) -> None:
    side, sock = await net.peer(lambda: Side(made=lambda side: side.transport.pause_reading()))
    sock.send(b"the last")
    sock.shutdown(socket.SHUT_WR)
    side.transport.resume_reading()
    await side.until(lambda: "eof" in side.events)
    assert side.data == b"the last"


@every_loop
async def test_urgent_data_do_not_stop_what_is_read(net: Net) -> None:
    """recv(2) stops before the urgent byte, with less than it could have had."""
    side, sock = await net.peer(lambda: Side(made=lambda side: side.transport.pause_reading()))
    sock.send(b"begun, ")
    sock.send(b"!", socket.MSG_OOB)
    sock.send(b"goes on")
    side.transport.resume_reading()
    await side.until(lambda: side.data == b"begun, goes on")


@every_loop
async def test_a_descriptor_that_comes_along_a_unix_socket_does_not_stop_what_is_read(
    net: Net, tmp_path: Path
) -> None:
    """recv(2) stops behind the bytes that brought it, with less than it could have had."""
    near, far = socket.socketpair()
    with closing(far):
        side = Side(made=lambda side: side.transport.pause_reading())
        await net.network.create_connection(lambda: side, sock=near)
        net.sides.append(side)
        with (tmp_path / "sent").open("wb") as sent:
            socket.send_fds(far, [b"begun, "], [sent.fileno()])
        far.send(b"goes on")
        side.transport.resume_reading()
        await side.until(lambda: side.data == b"begun, goes on")


@every_loop
async def test_who_writes_is_told_to_stop_and_to_go_on(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    side.transport.write(b"x" * HIGH_WATER)
    while not side.full:
        side.transport.write(b"x" * 1000)
    assert side.transport.get_write_buffer_size() > HIGH_WATER
    sent = asyncio.ensure_future(net.read(sock, 8 * MIB))
    await side.until(lambda: not side.full)
    assert side.transport.get_write_buffer_size() <= HIGH_WATER // 4
    side.transport.close()
    assert set(await sent) == {ord("x")}


@every_loop
async def test_many_small_writes_arrive_in_order(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    wanted = b"".join(b"%d," % number for number in range(50_000))
    for number in range(50_000):
        side.transport.write(b"%d," % number)
    side.transport.write_eof()
    assert await net.read_end(sock) == wanted


@every_loop
async def test_close_sends_the_rest_first(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    side.transport.write(BODY)
    side.transport.write(b"end")
    side.transport.close()
    side.transport.close()
    assert side.transport.is_closing()
    assert not side.lost
    assert await net.read_end(sock) == BODY + b"end"
    await side.until(lambda: side.lost == [None])


@every_loop
async def test_write_eof_sends_the_rest_first(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    side.transport.write(BODY)
    side.transport.write_eof()
    assert await net.read_end(sock) == BODY
    sock.send(b"more")
    await side.until(lambda: side.data == b"more")


@every_loop
async def test_abort_drops_the_rest(net: Net) -> None:
    side, sock = await net.peer(buffers=SMALL)
    side.transport.write(BODY)
    side.transport.abort()
    side.transport.abort()
    await side.until(lambda: side.lost == [None])
    with suppress(ConnectionResetError):
        assert len(await net.read_end(sock)) < len(BODY)


# Ending in the middle of something


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("where", ["made", "data", "eof", "full", "free"])
@every_loop
async def test_the_end_is_told_later_and_once(net: Net, where: str, how: str) -> None:
    def end(side: Side) -> None:
        getattr(side.transport, how)()
        getattr(side.transport, how)()
        side.transport.write(b"nothing")
        assert not side.lost
        side.events.append("ended")

    side, sock = await net.peer(lambda: Side(**{where: end}), buffers=SMALL)  # type: ignore[arg-type]
    if where == "data":
        sock.send(b"x")
    elif where == "eof":
        sock.shutdown(socket.SHUT_WR)
    elif where in ("full", "free"):
        side.transport.write(BODY)
    if where == "free" or how == "close":
        with suppress(ConnectionResetError):
            await net.read_end(sock)
    await side.until(lambda: side.lost)
    assert side.lost == [None]
    assert side.events[-1] == "lost"
    assert side.events.index("ended") < side.events.index("lost")


@every_loop
async def test_one_that_ends_another_which_is_ready_too(net: Net) -> None:
    """Whichever is served first ends the other, whose data are there already, and the memory of it."""
    address = await net.serve()
    socks = [net.plain() for _ in range(64)]
    for sock in socks:
        await net.loop.sock_connect(sock, address)
    while len(net.sides) < 64 or not net.sides[-1].events:  # noqa: ASYNC110 - none to wait for yet
        await asyncio.sleep(0)
    first: list[Side] = []

    def end_the_others(side: Side) -> None:
        first.append(side)
        for other in net.sides:
            if other is not side:
                other.transport.abort()
                del other.transport
        gc.collect()

    for side in net.sides:
        side.then["data"] = end_the_others
    for sock in socks:
        sock.send(b"x")
    await net.sides[0].until(lambda: first)
    for side in net.sides:
        if side is not first[0]:
            await side.until(lambda side=side: side.lost)  # type: ignore[misc]
            assert not side.data
    assert not first[0].lost


@every_loop
async def test_the_listener_ends_in_the_middle_of_an_accept(net: Net) -> None:
    address = await net.serve(lambda: Side(made=lambda side: (net.stop_serving(), gc.collect())))
    socks = [connected(net, address) for _ in range(8)]  # all are in its queue
    for sock in socks:
        sock.send(b"x")
    while not net.sides or not net.sides[0].events:  # noqa: ASYNC110 - none to wait for yet
        await asyncio.sleep(0)
    await net.sides[0].until(lambda: net.sides[0].data == b"x")


@every_loop
async def test_a_listener_that_another_connection_ends_while_it_is_ready(net: Net) -> None:
    """It is freed at once, and its own event may be among those that are being served."""
    side, sock = await net.peer(lambda: Side(data=lambda side: (net.stop_serving(), gc.collect())))
    second = await net.serve()
    sock.send(b"x")
    connected(net, second)
    await side.until(lambda: side.data)
    assert not net.problems


@every_loop
async def test_a_mistake_in_a_protocol_ends_its_connection_and_no_other(net: Net) -> None:
    def fail(side: Side) -> None:
        raise ValueError("a mistake")

    side, sock = await net.peer(lambda: Side(data=fail))
    other, further = await net.peer()
    sock.send(b"x")
    further.send(b"y")
    await side.until(lambda: side.lost)
    assert isinstance(side.lost[0], ValueError)
    assert isinstance((await net.problem())["exception"], ValueError)
    await other.until(lambda: other.data == b"y")


# Accepting


@contextmanager
def no_descriptor_left(sock: socket.socket) -> Iterator[None]:
    """Until the end of the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(sock.fileno()))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)


@every_loop
async def test_without_a_descriptor_left_accepting_goes_on_later(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "uvloop" in type(net.loop).__module__ and not COMPILED:
        pytest.skip("libuv closes whom it cannot accept")
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.05)
    monkeypatch.setattr("asyncio.selector_events.constants.ACCEPT_RETRY_DELAY", 0.05, raising=False)
    address = await net.serve()
    sock = net.plain()
    with no_descriptor_left(sock):
        await net.loop.sock_connect(sock, address)
        told = await net.problem()
    assert "Too many open files" in str(told["exception"])
    net._news.clear()
    async with asyncio.timeout(20):
        while not net.sides:
            await net._news.wait()
            net._news.clear()
    sock.send(b"x")
    await net.sides[0].until(lambda: net.sides[0].data == b"x")


@compiled_only
@every_loop
async def test_a_new_connection_is_watched_at_once_unless_its_request_is_whole(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind the first read does not wait for a timer."""
    monkeypatch.setattr("sidecar.net.network.YOUNG", 3600.0)
    address = await net.serve()
    sock = connected(net, address)
    sock.send(b"head ")
    while not net.sides or not net.sides[0].data:  # noqa: ASYNC110 - none to wait for yet
        await asyncio.sleep(0)
    sock.send(b"body")
    side = net.sides[0]
    await side.until(lambda: side.data == b"head body")


# Loops


@every_loop
async def test_timers_that_are_always_due_leave_room_for_the_sockets(net: Net) -> None:
    side, sock = await net.peer()
    sock.send(b"x")
    turning = True

    def turn() -> None:
        if turning:
            net.loop.call_later(0.0, turn)

    turn()
    await side.until(lambda: side.data)
    turning = False


@every_loop
async def test_callbacks_without_an_end_leave_room_for_the_sockets(net: Net) -> None:
    side, sock = await net.peer()
    sock.send(b"x")
    for _ in range(10_000):
        if side.data:
            break
        await asyncio.sleep(0)
    assert side.data == b"x"


@every_loop
async def test_sockets_without_a_pause_leave_room_for_everything_else(net: Net) -> None:
    """Two connections play ball until a timer, a callback and a thread have had their turn."""
    fired: list[str] = []

    class Player(Side):
        def data_received(self, data: bytes) -> None:
            if len(fired) < 3:
                self.transport.write(data)

    address = await net.serve(Player)
    player = Player()
    await net.network.create_connection(lambda: player, *address)
    net.sides.append(player)
    player.transport.write(b"ball")
    net.loop.call_later(0.01, fired.append, "timer")
    net.loop.call_soon(fired.append, "soon")
    await net.loop.run_in_executor(None, fired.append, "executor")
    while len(fired) < 3:  # noqa: ASYNC110 - that turns go on is the subject
        await asyncio.sleep(0)
    await net.loop.shutdown_default_executor()
    assert sorted(fired) == ["executor", "soon", "timer"]


@every_loop
async def test_another_thread_wakes_the_loop(net: Net) -> None:
    woken = asyncio.Event()
    thread = threading.Thread(target=net.loop.call_soon_threadsafe, args=[woken.set])
    thread.start()
    async with asyncio.timeout(20):
        await woken.wait()
    thread.join()


@every_loop
async def test_signals_and_child_processes(net: Net) -> None:
    heard = asyncio.Event()
    net.loop.add_signal_handler(signal.SIGUSR1, heard.set)
    program = "import os, signal; os.kill(os.getppid(), signal.SIGUSR1); print('said')"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    async with asyncio.timeout(20):
        await heard.wait()
    assert (said, child.returncode) == (b"said\n", 0)
    assert net.loop.remove_signal_handler(signal.SIGUSR1)


def test_an_interrupt_ends_a_loop_that_waits() -> None:
    """By a handler of Python's own, which no descriptor tells the loop of."""
    loop = new_event_loop() or asyncio.new_event_loop()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert not loop.is_running()
        assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"
    finally:
        signal.signal(signal.SIGALRM, before)
        loop.close()


def test_an_interrupt_loses_nothing_that_has_come() -> None:
    """Neither of the connection whose protocol it has met, nor of those that were ready in the same turn."""
    loop = new_event_loop() or asyncio.new_event_loop()
    met: list[Side] = []

    def interrupt(side: Side) -> None:
        met.append(side)
        if len(met) == 1:
            raise KeyboardInterrupt

    async def opened() -> None:
        for side in sides:
            await network.create_connection(lambda side=side: side, *listener.getsockname())

    sides = [Side(data=interrupt) for _ in range(3)]
    network = open_network(loop)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    try:
        loop.run_until_complete(opened())
        sent = []
        for _ in sides:
            sock, _ = listener.accept()
            with sock:
                sock.setblocking(False)
                sent.append(sock.send(BODY))
        assert min(sent) > 3 * 81920
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        for side in sides:
            loop.run_until_complete(side.until(lambda side=side: "eof" in side.events))  # type: ignore[misc]
        assert [bytes(side.data) for side in sides] == [BODY[:size] for size in sent]
        for side in sides:
            side.transport.abort()
            loop.run_until_complete(side.until(lambda side=side: side.lost))  # type: ignore[misc]
    finally:
        listener.close()
        close_network(network)
        loop.close()


async def _connected(held: list[Any]) -> None:
    """A server, and a connection between two protocols, all left open."""
    network = open_network(asyncio.get_running_loop())
    accepted: list[Side] = []
    server = await network.create_server(lambda: accepted.append(Side()) or accepted[-1], "127.0.0.1", 0)  # type: ignore[func-returns-value]
    opened = Side()
    await network.create_connection(lambda: opened, *server.sockets[0].getsockname())
    opened.transport.write(b"x")
    while not accepted or not accepted[0].data:  # noqa: ASYNC110 - none to wait for yet
        await asyncio.sleep(0)
    held += [server, opened, accepted[0]]


@compiled_only
def test_the_loop_is_closed_with_everything_open() -> None:
    """Nothing of it stays, and every protocol is told once; the descriptors are counted after each test."""
    loop = new_event_loop()
    held: list[Any] = []
    loop.run_until_complete(_connected(held))
    loop.close()
    loop.close()
    _, opened, accepted = held
    assert opened.lost == accepted.lost == [None]
    opened.transport.abort()
    opened.transport.close()
    opened.transport.write(b"nothing")
    assert opened.lost == [None]


@compiled_only
def test_a_network_is_closed_twice_and_used_again() -> None:
    """The loop's own outlives `close_network`, and has new connections grow up as before."""
    loop = new_event_loop()
    try:
        for _ in range(2):
            held: list[Any] = []
            loop.run_until_complete(_connected(held))
            close_network(open_network(loop))
            close_network(open_network(loop))
            assert held[1].lost == held[2].lost == [None]
    finally:
        loop.close()


@compiled_only
def test_a_network_that_is_closed_by_one_of_its_connections() -> None:
    loop = new_event_loop()

    async def main() -> None:
        network = open_network(loop)
        sides = [Side(data=lambda side: close_network(network)) for _ in range(2)]
        accepted: list[Side] = []
        server = await network.create_server(lambda: accepted.append(Side()) or accepted[-1], "127.0.0.1", 0)  # type: ignore[func-returns-value]
        for side in sides:
            await network.create_connection(lambda side=side: side, *server.sockets[0].getsockname())  # type: ignore[misc]
        while len(accepted) < 2 or not accepted[1].events:  # noqa: ASYNC110 - none to wait for yet
            await asyncio.sleep(0)
        for side in accepted:
            side.transport.write(b"x")
        for side in sides:
            await side.until(lambda side=side: side.lost)  # type: ignore[misc]

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


# What goes past the process


class Pair:
    """Two accepted or opened connections: what comes to the one is to go to the other."""

    def __init__(self, net: Net) -> None:
        self.net = net

    async def open(self, buffers: int = 0, **then: Callable[[Side], object]) -> None:
        self.source, self.sender = await self.net.peer(lambda: Side(**then), buffers)
        self.target, self.reader = await self.net.peer(buffers=buffers)

    def splice(self, size: int) -> None:
        self.source.transport.splice_into(self.target.transport, size)


@pytest.fixture
async def pair(net: Net) -> Pair:
    """Not open yet."""
    return Pair(net)


def hold_back(pair: Pair) -> None:
    """Back-pressure, as the proxy's protocols pass it on."""
    pair.target.pause_writing = pair.source.transport.pause_reading  # type: ignore[method-assign]
    pair.target.resume_writing = pair.source.transport.resume_reading  # type: ignore[method-assign]


@compiled_only
@every_loop
async def test_fifty_megabytes_past_the_process_to_a_slow_reader(net: Net, pair: Pair) -> None:
    await pair.open()
    hold_back(pair)
    pair.splice(50 * len(BODY))
    before = hashlib.sha256()
    after = hashlib.sha256()

    async def send() -> None:
        for number in range(50):
            block = number.to_bytes(8, "big") + BODY[8:]
            before.update(block)
            await net.send(pair.sender, block)
        await net.send(pair.sender, b"behind")

    sent = asyncio.ensure_future(send())
    for number in range(50):
        for _ in range(number % 7 * 20):  # stalls, in turns of the loop
            await asyncio.sleep(0)
        after.update(await net.read(pair.reader, len(BODY)))
    await sent
    assert before.digest() == after.digest()
    await pair.source.until(lambda: pair.source.data == b"behind")
    assert pair.source.spliced_bytes == 50 * len(BODY)


@compiled_only
@every_loop
async def test_what_the_pipe_holds_counts_as_unsent_and_goes_first(net: Net, pair: Pair) -> None:
    await pair.open(buffers=SMALL)
    pair.splice(len(BODY))
    sent = asyncio.ensure_future(net.send(pair.sender, BODY))
    await pair.target.until(lambda: pair.target.full)
    pair.source.transport.pause_reading()
    held = pair.target.transport.get_write_buffer_size()
    gone = pair.source.spliced_bytes
    assert 0 < held <= gone
    assert net.network.pipes == (1, 96)
    pair.target.transport.write(b"behind")
    pair.target.transport.close()
    assert pair.target.transport.get_write_buffer_size() == held + 6
    assert await net.read_end(pair.reader) == BODY[:gone] + b"behind"
    assert net.network.pipes == (1, 96), "kept for the next body"
    await pair.target.until(lambda: pair.target.lost == [None])
    sent.cancel()
    await asyncio.wait([sent])


@compiled_only
@every_loop
async def test_half_close_behind_what_the_pipe_holds(net: Net, pair: Pair) -> None:
    await pair.open(buffers=SMALL, eof=lambda side: pair.target.transport.write_eof())
    hold_back(pair)
    pair.splice(2 * len(BODY))
    sent = asyncio.ensure_future(net.send(pair.sender, BODY))
    read = asyncio.ensure_future(net.read_end(pair.reader))
    await sent
    pair.sender.shutdown(socket.SHUT_WR)
    assert await read == BODY
    assert pair.source.spliced_bytes + len(pair.source.data) == len(BODY)
    pair.reader.send(b"other way")
    await pair.target.until(lambda: pair.target.data == b"other way")


@compiled_only
@every_loop
async def test_a_reset_in_the_middle_is_an_error(net: Net, pair: Pair) -> None:
    """The kernel tells an error once: to splice(2) here, and who reads then sees a clean end."""
    await pair.open()
    pair.splice(len(BODY))
    await net.send(pair.sender, b"begun")
    assert await net.read(pair.reader, 5) == b"begun"
    reset(pair.sender)
    await pair.source.until(lambda: pair.source.lost)
    assert isinstance(pair.source.lost[0], ConnectionResetError)
    assert "eof" not in pair.source.events


@compiled_only
@every_loop
async def test_urgent_data_do_not_stop_what_is_spliced(net: Net, pair: Pair) -> None:
    """splice(2) stops before the urgent byte and says that there is nothing, while epoll says that there is."""
    await pair.open()
    pair.splice(len(BODY))
    await net.send(pair.sender, b"begun")
    await pair.source.until(lambda: pair.source.spliced_bytes == 5)
    pair.sender.send(b"!", socket.MSG_OOB)
    await net.send(pair.sender, b"goes on")
    await pair.source.until(lambda: pair.source.data == b"goes on")


@pytest.mark.parametrize("how", ["close", "abort", "reset", "write_eof"])
@compiled_only
@every_loop
async def test_the_target_ends_in_the_middle(net: Net, pair: Pair, how: str) -> None:
    """With the pipe full: what comes afterwards is read as if nothing had been said."""
    await pair.open(buffers=SMALL)
    pair.splice(sys.maxsize)
    sent = asyncio.ensure_future(net.send(pair.sender, BODY))
    await pair.target.until(lambda: pair.target.full)
    if how == "reset":
        reset(pair.reader)
        await pair.target.until(lambda: pair.target.lost)
        assert isinstance(pair.target.lost[0], ConnectionError)
    else:
        getattr(pair.target.transport, how)()
    await sent
    await pair.source.until(lambda: pair.source.data.endswith(BODY[-10:]))
    assert pair.source.spliced_bytes + len(pair.source.data) == len(BODY)


@compiled_only
@every_loop
async def test_the_source_ends_with_bytes_in_the_pipe(net: Net, pair: Pair) -> None:
    await pair.open(buffers=SMALL)
    pair.splice(sys.maxsize)
    sent = asyncio.ensure_future(net.send(pair.sender, BODY))
    await pair.target.until(lambda: pair.target.full)
    pair.source.transport.abort()
    gone = pair.source.spliced_bytes
    with pytest.raises(ConnectionError):
        await sent
    pair.target.transport.close()
    assert await net.read_end(pair.reader) == BODY[:gone]


@pytest.mark.parametrize("how", ["source", "target"])
@compiled_only
@every_loop
async def test_either_is_aborted_while_it_is_told_to_stop(net: Net, pair: Pair, how: str) -> None:
    await pair.open(buffers=SMALL)
    pair.target.then["full"] = lambda _: getattr(pair, how).transport.abort()
    pair.splice(sys.maxsize)
    sent = asyncio.ensure_future(net.send(pair.sender, BODY))
    side = getattr(pair, how)
    await side.until(lambda: side.lost == [None])
    sent.cancel()
    await asyncio.wait([sent])


@compiled_only
@every_loop
async def test_who_does_not_stop_for_a_full_target_gets_the_bytes(net: Net, pair: Pair) -> None:
    """Neither lost, nor asked about again and again."""
    await pair.open(buffers=SMALL)
    pair.splice(sys.maxsize)
    await net.send(pair.sender, BODY)
    await pair.source.until(lambda: pair.source.spliced_bytes + len(pair.source.data) == len(BODY))
    assert pair.target.full
    assert pair.source.data


@compiled_only
@every_loop
async def test_without_a_descriptor_for_the_pipe_the_bytes_are_read(net: Net, pair: Pair) -> None:
    await pair.open()
    pair.splice(len(BODY))
    with no_descriptor_left(pair.sender):
        pair.sender.send(b"read")
        await pair.source.until(lambda: pair.source.data == b"read")
    pair.splice(7)
    await net.send(pair.sender, b"spliced.")
    await pair.source.until(lambda: pair.source.data == b"read.")
    assert await net.read(pair.reader, 7) == b"spliced"


@compiled_only
@every_loop
async def test_idle_pipes_give_way_where_descriptors_are_short(net: Net, pair: Pair) -> None:
    """To a connection that is accepted, and to one that is opened."""
    address = await net.serve()
    accepted = len(net.sides)
    for way in ("accept", "connect"):
        await pair.open()
        pair.splice(len(BODY))
        await net.send(pair.sender, b"x")
        assert await net.read(pair.reader, 1) == b"x"
        assert net.network.pipes == (1, 96)
        sock, nobody = net.plain(), net.plain()
        nobody.bind(("127.0.0.1", 0))
        told = Told()
        with no_descriptor_left(sock):
            if way == "accept":
                await net.loop.sock_connect(sock, address)
                while len(net.sides) == accepted:  # noqa: ASYNC110 - none to wait for yet
                    await asyncio.sleep(0)
            else:
                net.network.connect_to(Side, *nobody.getsockname(), told)
                assert isinstance((await told.once())[2], ConnectionRefusedError)
            assert net.network.pipes == (0, 96)
    assert not net.problems


@compiled_only
@every_loop
async def test_whether_more_has_come(net: Net) -> None:
    side, sock = await net.peer()
    side.transport.pause_reading()
    assert not side.transport.has_more()
    sock.setblocking(True)
    sock.sendall(b"x")
    while not side.transport.has_more():  # noqa: ASYNC110 - nobody is told while it is paused
        await asyncio.sleep(0)
    side.transport.resume_reading()
    await side.until(lambda: side.data == b"x")
    side.transport.abort()
    assert not side.transport.has_more()
