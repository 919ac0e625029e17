"""The services that the demo invents: an HTTP endpoint that names itself, and a line-based TCP echo.

Small on purpose: they answer what `curl`, `nc` and the demo's own traffic send, and hang up on the rest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from sidecar.demo.script import Health, Script

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ApiConnection", "ApiEndpoint", "EchoConnection", "Service"]

MAX_HEAD = 16 * 1024  # bytes: far more than a person's curl sends
MAX_LINE = 64 * 1024  # bytes: a longer line ends its session


class Connection(asyncio.Protocol):
    """What both kinds of connection have: a transport while it is open. peers: all that are open."""

    def __init__(self, peers: set[Connection]) -> None:
        self._peers = peers
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._transport = cast("asyncio.Transport", transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self._transport = None
        self._peers.discard(self)

    def abort(self) -> None:
        """Hang up, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


class ApiEndpoint:
    """One HTTP endpoint: what its connections share.

    name: what it answers. script: when it is ill. elapsed: seconds since the demo began.
    """

    __slots__ = ("_elapsed", "_script", "_suffered", "name")

    def __init__(self, name: str, script: Script, elapsed: Callable[[], float]) -> None:
        self.name = name
        self._script = script
        self._elapsed = elapsed
        self._suffered = 0

    def next_health(self) -> Health:
        """How the request that has just arrived is treated."""
        health = self._script.health(self._elapsed(), self._suffered)
        self._suffered = 0 if health is Health.WELL else self._suffered + 1
        return health

    def accept(self, peers: set[Connection]) -> ApiConnection:
        """A protocol for one accepted connection."""
        return ApiConnection(peers, self)


class ApiConnection(Connection):
    """One HTTP/1.1 connection: keep-alive, pipelined requests, request bodies of a given length skipped."""

    def __init__(self, peers: set[Connection], endpoint: ApiEndpoint) -> None:
        super().__init__(peers)
        self._endpoint = endpoint
        self._to_skip = 0  # bytes of a request body that are still to come
        self._closing = False

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._received += data
        while not self._closing:
            skipped = min(self._to_skip, len(self._received))
            self._received = self._received[skipped:]
            self._to_skip -= skipped
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                if len(self._received) > MAX_HEAD:
                    self.abort()
                return
            self._received = rest
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        health = self._endpoint.next_health()
        if self._transport is None or health is Health.DROPPING:
            self._closing = True
            self.abort()
            return
        lines = head.lower().split(b"\r\n")
        fields = dict(line.partition(b":")[::2] for line in lines[1:])
        length = fields.get(b"content-length", b"").strip()
        self._to_skip = int(length) if length.isdigit() else 0
        # The end of a body whose length is not given is not looked for: answer and close.
        self._closing = fields.get(b"connection", b"").strip() == b"close" or b"transfer-encoding" in fields
        name = self._endpoint.name
        if health is Health.WELL:
            status, body = "200 OK", f"{name}\n"
        else:
            status, body = "503 Service Unavailable", f"{name} is unwell\n"
        answer = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}"]
        if self._closing:
            answer.append("Connection: close")
        without_body = lines[0].startswith(b"head ")
        self._transport.write("\r\n".join([*answer, "", "" if without_body else body]).encode("ascii"))
        if self._closing:
            self._transport.close()


class EchoConnection(Connection):
    """One TCP session: each line comes back with `echo: ` before it."""

    def data_received(self, data: bytes) -> None:
        """Send every complete line back."""
        *lines, self._received = (self._received + data).split(b"\n")
        if lines and self._transport is not None:
            self._transport.write(b"".join(b"echo: " + line + b"\n" for line in lines))
        if len(self._received) > MAX_LINE:
            self.abort()


class Service:
    """A listening service and its connections. port: on 127.0.0.1, known once started."""

    __slots__ = ("_accept", "_peers", "_server", "port")

    def __init__(self, accept: Callable[[set[Connection]], Connection]) -> None:
        self._accept = accept
        self._peers: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._accept(self._peers), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and hang up on everyone; needs no `start` before."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._peers):
            connection.abort()
        # A turn for the transports to tell their protocols.
        await asyncio.sleep(0)
