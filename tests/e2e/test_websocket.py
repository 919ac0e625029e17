"""WebSocket (RFC 6455) through the proxy: two servers and two clients that others wrote, each with each."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.ports import free_port
from support.proxy import Sidecar, configuration
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
BIG = 10 * MIB
REFUSED_PATH = "/refused"

Message = str | bytes


# Servers. Each answers a message by itself, `close CODE` by closing, `digest` + bytes by their SHA-256.


def answer(message: Message) -> Message | tuple[int, str]:
    """What a server says to this message; a code and reason closes."""
    if isinstance(message, str) and message.startswith("close "):
        return int(message.split()[1]), "as asked"
    if isinstance(message, str) and message.startswith("send "):
        return b"x" * int(message.split()[1])
    if len(message) > MIB:
        data = message.encode() if isinstance(message, str) else message
        return hashlib.sha256(data).hexdigest()
    return message


@asynccontextmanager
async def websockets_server(port: int, ends: list[int | None]) -> AsyncIterator[None]:
    """The websockets library. ends: the close codes that it was given."""

    async def handle(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):  # any code but 1000 and 1001 is an error there
            async for message in connection:
                said = answer(message)
                if isinstance(said, tuple):
                    await connection.close(*said)
                else:
                    await connection.send(said)
        ends.append(connection.close_code)

    def check(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, "no\n") if request.path == REFUSED_PATH else None

    async with serve(
        handle, "127.0.0.1", port, max_size=2 * BIG, process_request=check, subprotocols=["chat"]
    ):  # type: ignore[list-item]
        yield


@asynccontextmanager
async def aiohttp_server(port: int, ends: list[int | None]) -> AsyncIterator[None]:
    """aiohttp."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == REFUSED_PATH:
            return web.Response(status=403, text="no\n")
        connection = web.WebSocketResponse(max_msg_size=2 * BIG, protocols=["chat"])
        await connection.prepare(request)
        async for message in connection:
            said = answer(message.data)
            if isinstance(said, tuple):
                await connection.close(code=said[0], message=said[1].encode())
            elif isinstance(said, str):
                await connection.send_str(said)
            else:
                await connection.send_bytes(said)
        ends.append(connection.close_code)
        return connection

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


# Clients


class WebsocketsPeer:
    """A connection of the websockets library."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @property
    def protocol(self) -> str | None:
        return self.connection.subprotocol  # type: ignore[no-any-return]

    async def send(self, message: Any) -> None:
        await self.connection.send(message)

    async def receive(self) -> Message:
        return await self.connection.recv()  # type: ignore[no-any-return]

    async def ping(self) -> None:
        await (await self.connection.ping(b"are you there"))

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)

    async def closed(self) -> tuple[int | None, str]:
        await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


class AiohttpPeer:
    """A connection of aiohttp."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection

    @property
    def protocol(self) -> str | None:
        return self.connection.protocol

    async def send(self, message: Message) -> None:
        if isinstance(message, str):
            await self.connection.send_str(message)
        else:
            await self.connection.send_bytes(message)

    async def receive(self) -> Message:
        message = await self.connection.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        return message.data  # type: ignore[no-any-return]

    async def ping(self) -> None:
        await self.connection.ping(b"are you there")
        message = await self.connection.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"are you there")

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int | None, str]:
        message = await self.connection.receive()
        assert message.type == aiohttp.WSMsgType.CLOSE, message
        return message.data, message.extra or ""


@asynccontextmanager
async def websockets_client(url: str) -> AsyncIterator[WebsocketsPeer]:
    """The websockets library."""
    async with connect(url, max_size=2 * BIG, subprotocols=["chat"], proxy=None) as connection:  # type: ignore[list-item]
        yield WebsocketsPeer(connection)


@asynccontextmanager
async def aiohttp_client(url: str) -> AsyncIterator[AiohttpPeer]:
    """aiohttp."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, max_msg_size=2 * BIG, protocols=["chat"], autoping=False) as connection,
    ):
        yield AiohttpPeer(connection)


SERVERS: dict[str, Any] = {"websockets-server": websockets_server, "aiohttp-server": aiohttp_server}
CLIENTS: dict[str, Any] = {"websockets-client": websockets_client, "aiohttp-client": aiohttp_client}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, int, int]]:
    """A sidecar, its port, and the port where the test's own server is to listen."""
    listen, origin = free_port(), free_port()
    with Sidecar(tmp_path_factory.mktemp("websocket"), configuration(listen, [origin])) as sidecar:
        yield sidecar, listen, origin


@pytest.fixture(params=SERVERS)
async def server(
    request: pytest.FixtureRequest, proxied: tuple[Sidecar, int, int]
) -> AsyncIterator[list[int | None]]:
    """A server behind the sidecar; the close codes that it was given."""
    ends: list[int | None] = []
    async with SERVERS[request.param](proxied[2], ends):
        yield ends


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, proxied: tuple[Sidecar, int, int]) -> Callable[[], Any]:
    """Connects through the sidecar."""
    return lambda: CLIENTS[request.param](f"ws://127.0.0.1:{proxied[1]}/chat?a=b")


@pytest.fixture(autouse=True)
async def worker_threads() -> AsyncIterator[None]:
    """The libraries compress in the loop's threads, which are to end with the test."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_text_binary_ping_and_the_subprotocol(
    server: list[int | None], client: Callable[[], Any]
) -> None:
    async with client() as peer:
        assert peer.protocol == "chat"
        for message in ("hello", "", "\u00e4\u20ac\U0001f600", b"\x00\xff" * 1000, b""):
            await peer.send(message)
            assert await peer.receive() == message
        await peer.ping()
        await peer.send("still there")
        assert await peer.receive() == "still there"


async def test_ten_megabytes_each_way(server: list[int | None], client: Callable[[], Any]) -> None:
    sent = hashlib.shake_128(b"websocket").digest(BIG)
    async with client() as peer:
        await peer.send(sent)
        assert await peer.receive() == hashlib.sha256(sent).hexdigest()
        await peer.send(f"send {BIG}")
        assert await peer.receive() == b"x" * BIG


async def test_the_clients_close_code_reaches_the_server(
    server: list[int | None], client: Callable[[], Any]
) -> None:
    async with client() as peer:
        await peer.send("hello")
        assert await peer.receive() == "hello"
        await peer.close(4001, "enough")
    await told(lambda: 4001 in server)


async def test_the_servers_close_code_reaches_the_client(
    server: list[int | None], client: Callable[[], Any]
) -> None:
    async with client() as peer:
        await peer.send("close 4002")
        assert await peer.closed() == (4002, "as asked")


async def test_many_at_once(server: list[int | None], client: Callable[[], Any]) -> None:
    async def talk(number: int) -> None:
        async with client() as peer:
            for turn in range(20):
                await peer.send(f"{number} {turn}")
                assert await peer.receive() == f"{number} {turn}"

    await asyncio.gather(*(talk(number) for number in range(50)))


async def test_fragments_pass_as_one_message(
    server: list[int | None], proxied: tuple[Sidecar, int, int]
) -> None:
    async with websockets_client(f"ws://127.0.0.1:{proxied[1]}/") as peer:
        await peer.connection.send(["a", "b", "", "c" * 100_000, "d"])
        assert await peer.receive() == "ab" + "c" * 100_000 + "d"


async def test_a_refused_handshake_is_an_ordinary_response(
    server: list[int | None], proxied: tuple[Sidecar, int, int]
) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"ws://127.0.0.1:{proxied[1]}{REFUSED_PATH}")
        assert caught.value.status == 403
        async with session.get(f"http://127.0.0.1:{proxied[1]}{REFUSED_PATH}") as response:
            assert await response.text() == "no\n"


async def test_a_tunnel_is_counted_while_it_is_open_and_when_it_ends(
    server: list[int | None], client: Callable[[], Any], proxied: tuple[Sidecar, int, int]
) -> None:
    sidecar = proxied[0]
    active = 'sidecar_tcp_sessions_active{upstream="api"}'
    switched = 'sidecar_requests_total{code_class="1xx",method="GET",reason="none",upstream="api"}'

    async def quiet() -> dict[str, float]:
        """The metrics once no tunnel is open; the test's time limit is the bound."""
        while (metrics := await asyncio.to_thread(sidecar.metrics)).get(active, 0.0):
            pass
        return metrics

    def ended(metrics: dict[str, float]) -> float:
        return sum(value for name, value in metrics.items() if name.startswith("sidecar_tcp_sessions_total"))

    before = await quiet()
    async with client() as peer:
        await peer.send("hello")
        assert await peer.receive() == "hello"
        during = await asyncio.to_thread(sidecar.metrics)
        assert during[active] == 1
        assert during[switched] == before.get(switched, 0.0) + 1
    assert ended(await quiet()) == ended(before) + 1


async def told(condition: Callable[[], bool]) -> None:
    """Let the loop run until the server has noted it; the test's time limit is the bound."""
    while not condition():  # noqa: ASYNC110 - the libraries offer nothing to wait for
        await asyncio.sleep(0)
