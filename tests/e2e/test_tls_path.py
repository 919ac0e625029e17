"""TLS through the data path, over sockets: real peers before and behind it, and those that misbehave.

What makes contexts of a configuration is no part of this (`support.tls` stands for it).
"""

import asyncio
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from support.authority import Authority
from support.ports import free_port, listening_socket
from support.servers import Nginx
from support.tls import ANY_NAME, ClientDouble, ServerDouble, client_context, server_context

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.model import CloseReason, Endpoint, Outcome, Snapshot, UpstreamPolicy
from sidecar.net.network import close_network, open_network
from sidecar.proxy import Listener, ProxyContext

every_loop = pytest.mark.every_loop

MIB = 1 << 20
BODY = hashlib.sha256(b"").digest() * (10 * MIB // 32)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Through:
    """A listener before endpoints at `ports`. secure: of the endpoints; door: of the listener."""

    def __init__(
        self,
        *ports: int,
        scheme: str = "http",
        secure: ClientDouble | None = None,
        door: ServerDouble | None = None,
        context: dict[str, Any] | None = None,
        **policy: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.network = open_network(loop)
        self.context = ProxyContext(loop, Clock(), self.network, **(context or {}))
        self.cluster = Cluster("api", scheme, UpstreamPolicy(**policy), Clock())
        self.cluster.tls = secure
        endpoints = tuple(Endpoint("127.0.0.1", port) for port in ports)
        self.cluster.apply(Snapshot("api", endpoints, "static"))
        self.door = door
        self.listener = Listener(self.context, self.cluster)
        self.port = 0

    async def __aenter__(self) -> Self:
        bound = listening_socket()
        self.port = bound.getsockname()[1]
        await self.listener.adopt("127.0.0.1", bound, tls=self.door)
        self.context.sweep.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        for member in tuple(self.context.sweep.members):
            member.shut()
        await until(lambda: not self.context.clients)
        self.context.sweep.stop()
        if self.network is not asyncio.get_running_loop():
            close_network(self.network)
        assert not self.context.sweep.members

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client, which speaks TLS to a door."""
        if self.door is not None:
            options = {"ssl": client_context(), "server_hostname": ANY_NAME, **options}
        return await asyncio.open_connection("127.0.0.1", self.port, limit=16 * MIB, **options)

    async def get(self, path: str = "/") -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n".encode())
            return await answer(reader)
        finally:
            await closed(writer)


async def until(look: Callable[[], object]) -> None:
    """Wait until `look` sees something that no event tells of."""
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110 - numbers have no event
            await asyncio.sleep(0.002)


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Read to the end, which is to come; whether it is a break."""
    async with asyncio.timeout(20):
        try:
            while await reader.read(65536):
                pass
        except (ConnectionResetError, ssl.SSLError):
            return True
    return False


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and fields of one answer with a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(fields["content-length"]))
    return int(status.split()[1]), body, fields


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close, whatever has become of the connection."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def serving(handle: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server of Python's; the port. context: None is in the clear."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, EOFError):
                await handle(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=MIB)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await until(lambda: not tasks)


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`ok` to everything; a POST gets its body's digest."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /big"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        elif head.startswith(b"POST"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            digest = hashlib.sha256(await reader.readexactly(length)).hexdigest().encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(digest) + digest)
        else:
            writer.write(OK)
        await writer.drain()


BOTH = pytest.mark.parametrize("version", ["1.2", "1.3"])


@every_loop
@BOTH
async def test_requests_over_tls_on_both_sides(version: str) -> None:
    secure = ClientDouble(client_context(version=version))
    async with (
        serving(answering, server_context()) as port,
        Through(port, secure=secure, door=ServerDouble(server_context(version=version))) as path,
    ):
        reader, writer = await path.connect()
        for _ in range(3):
            writer.write(REQUEST)
            assert (await answer(reader))[:2] == (200, b"ok")
        assert path.context.clients == 1
        await closed(writer)
        assert path.cluster.stats.connects[0] == 1


@every_loop
async def test_large_bodies_both_ways() -> None:
    async with (
        serving(answering, server_context()) as port,
        Through(port, secure=ClientDouble(), door=ServerDouble()) as path,
    ):
        status, body, _ = await path.get("/big")
        assert (status, len(body)) == (200, len(BODY))
        assert body == BODY
        reader, writer = await path.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert (await answer(reader))[1].decode() == hashlib.sha256(BODY).hexdigest()
        await closed(writer)


@every_loop
async def test_a_client_that_reads_slowly_holds_the_endpoint_back() -> None:
    async with (
        serving(answering, server_context()) as port,
        Through(port, secure=ClientDouble(), door=ServerDouble()) as path,
    ):
        reader, writer = await path.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined] # StreamWriter's is one that reads too
        writer.write(b"GET /big HTTP/1.1\r\nHost: api\r\n\r\n")
        await until(
            lambda: any(getattr(member, "write_full", False) for member in path.context.sweep.members)
        )
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await answer(reader))[1] == BODY
        await closed(writer)


@every_loop
async def test_the_session_of_an_endpoint_is_resumed() -> None:
    secure = ClientDouble()
    async with serving(answering, server_context()) as port, Through(port, secure=secure) as path:
        for _ in range(3):
            assert (await path.get())[0] == 200
            for connection in tuple(path.context.sweep.members):
                connection.shut()
        assert [tls.session_reused for tls in secure.wrapped] == [False, True, True]
        secure.context = client_context(own="test")  # as after a rotation: the session is another context's
        assert (await path.get())[0] == 200
        assert not secure.wrapped[-1].session_reused
        path.cluster.tls = ClientDouble(secure.context)  # as after a reload
        for connection in tuple(path.context.sweep.members):
            connection.shut()
        assert (await path.get())[0] == 200
        assert not path.cluster.tls.wrapped[-1].session_reused


@every_loop
async def test_an_endpoint_with_another_authority_is_passed_over() -> None:
    secure = ClientDouble()
    async with (
        serving(answering, server_context(authority="stranger")) as bad,
        serving(answering, server_context()) as good,
        Through(bad, good, secure=secure) as path,
    ):
        for _ in range(4):
            assert (await path.get())[0] == 200
        assert isinstance(secure.failures[0][1], ssl.SSLCertVerificationError)
        assert path.cluster.stats.connects[3] >= 1


@every_loop
async def test_the_answer_says_why_no_endpoint_could_be_trusted() -> None:
    secure = ClientDouble()
    async with (
        serving(answering, server_context(authority="stranger")) as port,
        Through(port, secure=secure, retries=0) as path,
    ):
        status, _, fields = await path.get()
        assert (status, fields["x-sidecar-error"]) == (502, "tls_unknown_ca")
        (state,) = path.cluster.endpoints.values()
        assert state.attempts[Outcome.TLS_UNKNOWN_CA] == 1
        assert path.cluster.limit.used == 0


@every_loop
async def test_an_endpoint_that_is_not_who_it_should_be() -> None:
    secure = ClientDouble()
    secure.refuse = ssl.SSLError("none of tls.identity")
    async with serving(answering, server_context()) as port, Through(port, secure=secure, retries=0) as path:
        status, _, fields = await path.get()
        assert (status, fields["x-sidecar-error"]) == (502, "tls_failed")


@every_loop
@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", os.urandom(64), b""])
async def test_endpoints_that_speak_no_tls(said: bytes) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    secure = ClientDouble()
    async with serving(shout) as port, Through(port, secure=secure, retries=0) as path:
        status, _, fields = await path.get()
        assert status in (502, 503)
        assert fields["x-sidecar-error"] in ("tls_failed", "connect_refused")


@every_loop
async def test_a_handshake_that_never_ends_is_a_connect_time_out() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(4096):
                pass
        gone.set()

    secure = ClientDouble()
    async with (
        serving(silent) as port,
        Through(port, secure=secure, retries=0, connect_timeout=0.2) as path,
    ):
        status, _, fields = await path.get()
        assert (status, fields["x-sidecar-error"]) == (504, "connect_timeout")
        async with asyncio.timeout(10):
            await gone.wait()
        assert not secure.failures


@every_loop
async def test_a_slow_handshake_is_waited_for() -> None:
    """A relay before the real server, that passes on a few bytes at a time."""
    async with serving(answering, server_context()) as behind:

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)

            async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(7):
                    target.write(data)
                    await target.drain()
                    await asyncio.sleep(0)

            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                far_writer.transport.abort()

        async with serving(slow) as port, Through(port, secure=ClientDouble(), connect_timeout=10.0) as path:
            assert (await path.get())[:2] == (200, b"ok")


@every_loop
async def test_a_client_that_goes_during_the_handshake_leaves_nothing() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        with suppress(ConnectionError):
            while await reader.read(4096):
                pass
        gone.set()

    async with serving(silent) as port, Through(port, secure=ClientDouble(), connect_timeout=30.0) as path:
        _, writer = await path.connect()
        writer.write(REQUEST)
        async with asyncio.timeout(10):
            await begun.wait()
            await closed(writer)
            await gone.wait()
        (_state,) = path.cluster.endpoints.values()
        assert path.cluster.limit.used == 0


@every_loop
async def test_a_body_without_a_length_that_is_cut_is_no_whole_one() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await writer.drain()
        writer.transport.abort()  # no close_notify

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await closed(writer)

    for handle, ending in ((cut, None), (whole, b"0\r\n\r\n")):
        async with serving(handle, server_context()) as port, Through(port, secure=ClientDouble()) as path:
            reader, writer = await path.connect()
            writer.write(REQUEST)
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"chunked" in head
                if ending is None:
                    assert await cut_off(reader)
                else:
                    assert await reader.readuntil(b"0\r\n\r\n") == b"9\r\nall of it\r\n0\r\n\r\n"
            await closed(writer)


class _Blocking:
    """A server in a thread that uses the socket module, as ssl there half-closes and asyncio's does not."""

    def __init__(self, serve: Callable[[ssl.SSLSocket], None], clients: str = "") -> None:
        self._context = server_context(clients=clients)
        self._bound = listening_socket()
        self._bound.settimeout(20)
        self.port = self._bound.getsockname()[1]
        self._serve = serve
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._bound.close()
        assert not self._thread.is_alive()
        if not self._context.verify_mode:
            assert self.error is None

    def _run(self) -> None:
        try:
            accepted, _ = self._bound.accept()
            accepted.settimeout(20)
            with self._context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as tls:
                self._serve(tls)
        except BaseException as error:  # it is the test's to raise it
            self.error = error


@every_loop
async def test_half_closing_passes_through_a_session() -> None:
    """The application has said all; the endpoint hears the end, and answers after it."""

    def serve(tls: ssl.SSLSocket) -> None:
        heard = b""
        while piece := tls.recv(65536):
            heard += piece
        tls.sendall(b"heard %d" % len(heard))
        tls.unwrap()

    with _Blocking(serve) as server:
        async with Through(server.port, scheme="tcp", secure=ClientDouble()) as path:
            reader, writer = await path.connect()
            writer.write(bytes(100_000))
            writer.write_eof()
            async with asyncio.timeout(20):
                assert await reader.read() == b"heard 100000"
            await closed(writer)
            await until(lambda: not path.cluster.stats.sessions_active)
            assert path.cluster.stats.sessions[CloseReason.CLIENT_CLOSED] == 1


@every_loop
async def test_a_session_whose_endpoint_is_cut_is_reset() -> None:
    def serve(tls: ssl.SSLSocket) -> None:
        tls.recv(16)
        tls.sendall(b"half")

    with _Blocking(serve) as server:
        async with Through(server.port, scheme="tcp", secure=ClientDouble()) as path:
            reader, writer = await path.connect()
            writer.write(b"question")
            assert await cut_off(reader)
            await closed(writer)
            assert path.cluster.stats.sessions[CloseReason.ENDPOINT_RESET] == 1


@every_loop
async def test_who_ends_first_is_not_let_down_by_an_endpoint_that_says_no_goodbye() -> None:
    """As Redis does. But who goes on reading is not to take for whole what may have been cut."""

    def serve(tls: ssl.SSLSocket) -> None:
        while tls.recv(16):
            pass

    with _Blocking(serve) as server:
        async with Through(server.port, scheme="tcp", secure=ClientDouble()) as path:
            reader, writer = await path.connect()
            writer.write(b"question")
            writer.write_eof()
            assert await cut_off(reader)
            await closed(writer)
            await until(lambda: not path.cluster.stats.sessions_active)
            assert path.cluster.stats.sessions[CloseReason.CLIENT_CLOSED] == 1


@every_loop
async def test_sessions_over_a_tls_port() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async with serving(echo) as port, Through(port, scheme="tcp", door=ServerDouble()) as path:
        reader, writer = await path.connect()
        for size in (1, 1000, 200_000):
            writer.write(BODY[:size])
            assert await reader.readexactly(size) == BODY[:size]
        await closed(writer)


@every_loop
async def test_plain_http_on_a_tls_port_is_told_so() -> None:
    door = ServerDouble()
    async with serving(answering) as port, Through(port, door=door) as path:
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        writer.write(REQUEST)
        status, body, _ = await answer(reader)
        assert status == 400
        assert b"https://" in body
        await closed(writer)
        (error,) = door.failures
        assert isinstance(error, ssl.SSLError)
        assert error.reason == "HTTP_REQUEST"


@every_loop
async def test_what_is_no_handshake_is_closed() -> None:
    door = ServerDouble()
    async with serving(answering) as port, Through(port, door=door) as path:
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        writer.write(bytes(64))
        await cut_off(reader)
        await closed(writer)
        assert len(door.failures) == 1


@every_loop
async def test_a_client_that_is_not_wanted() -> None:
    door = ServerDouble()
    door.refuse = ssl.SSLError("none of tls.identity")
    async with serving(answering) as port, Through(port, door=door) as path:
        reader, writer = await path.connect()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        await closed(writer)
        assert door.failures == [door.refuse]
        assert path.context.clients == 0


@every_loop
async def test_a_client_without_its_certificate() -> None:
    """Over TLS 1.3 it learns of that behind its handshake."""
    door = ServerDouble(server_context(clients="test"))
    async with serving(answering) as port, Through(port, door=door) as path:
        reader, writer = await path.connect()
        writer.write(REQUEST)
        await cut_off(reader)
        await closed(writer)
        assert len(door.failures) == 1
        reader, writer = await path.connect(ssl=client_context(own="test"))
        writer.write(REQUEST)
        assert (await answer(reader))[0] == 200
        await closed(writer)


@every_loop
async def test_an_endpoint_that_does_not_want_our_certificate_is_noted() -> None:
    """The handshake is over by then (TLS 1.3): a reset for the exchange, and a word for who keeps the contexts."""
    secure = ClientDouble()
    with _Blocking(lambda tls: None, clients="test") as server:
        async with Through(server.port, scheme="tcp", secure=secure) as path:
            reader, writer = await path.connect()
            assert await cut_off(reader)
            await closed(writer)
            (failure,) = secure.failures
            assert "certificate required" in str(failure[1]).lower()
    assert isinstance(server.error, ssl.SSLError)


@every_loop
async def test_an_answer_is_whole_behind_which_the_connection_closes() -> None:
    """The client is a thread's: those of loops lose what they have not delivered when the end comes."""

    def read(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            client_context().wrap_socket(
                plain, server_hostname=ANY_NAME, suppress_ragged_eofs=False
            ) as client,
        ):
            client.sendall(b"GET /big HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
            found = b""
            while piece := client.recv(65536):
                found += piece
            return found

    async with (
        serving(answering, server_context()) as port,
        Through(port, secure=ClientDouble(), door=ServerDouble()) as path,
    ):
        found = await asyncio.to_thread(read, path.port)
        assert found.endswith(b"\r\n\r\n" + BODY)
    await asyncio.get_running_loop().shutdown_default_executor()


@every_loop
async def test_who_does_not_shake_hands_is_closed_in_time() -> None:
    door = ServerDouble()
    async with (
        serving(answering) as port,
        Through(port, door=door, context={"head_timeout": 0.2}) as path,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        await until(lambda: path.context.clients)
        await cut_off(reader)
        await closed(writer)
        (error,) = door.failures
        assert isinstance(error, TimeoutError)
        assert path.context.clients == 0


@every_loop
async def test_clients_are_counted_from_the_accept_on_and_once() -> None:
    door = ServerDouble()
    async with (
        serving(answering) as port,
        Through(port, door=door, context={"max_clients": 1}) as path,
    ):
        reader, writer = await path.connect()
        assert path.context.clients == 1
        second_reader, second_writer = await asyncio.open_connection("127.0.0.1", path.port)
        await cut_off(second_reader)
        await closed(second_writer)
        assert path.context.refused == 1
        writer.write(REQUEST)
        assert (await answer(reader))[0] == 200
        await closed(writer)
        await until(lambda: not path.context.clients)
        _, writer = await asyncio.open_connection("127.0.0.1", path.port)
        await until(lambda: path.context.clients)
        await closed(writer)


@pytest.mark.server("nginx", "openssl")
@every_loop
async def test_before_nginx(tmp_path: Path) -> None:
    class Secure(Nginx):
        def block(self, name: str, port: int) -> str:
            made = f"ssl_certificate {shown.cert}; ssl_certificate_key {shown.key};"
            return super().block(name, port).replace(" backlog=2048;", f" ssl backlog=2048; {made}")

    authority = Authority(tmp_path / "ca")
    shown = authority.issue("nginx", f"DNS:{ANY_NAME}")
    context = ssl.create_default_context(cafile=str(authority.ca))
    server = Secure(tmp_path / "nginx", "one", ports=[free_port()])
    (tmp_path / "nginx" / "big").write_bytes(BODY)
    with server:
        secure = ClientDouble(context)
        async with Through(server.port, secure=secure, door=ServerDouble()) as path:
            assert (await path.get())[:2] == (200, b"one\n")
            assert (await path.get("/big"))[1] == BODY
            reader, writer = await path.connect()
            writer.write(
                b"PUT /upload/x HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
            )
            assert (await answer(reader))[0] in (201, 204)
            await closed(writer)
            assert server.uploaded("x").read_bytes() == BODY
