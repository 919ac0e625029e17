"""One conversation with one endpoint: opened as the data path opens its connections, and closed whatever happens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sidecar.config.addresses import is_address
from sidecar.net import names
from sidecar.net.unix import is_unix
from sidecar.net.unix_sockets import connect as connect_unix

__all__ = ["CannotAskError", "Resolve", "UnwellError", "connect", "conversation"]

# What getaddrinfo says where it has found out nothing of the name: at the start of a machine or a network, for one. A
# name that does not exist is another matter: nobody will be reached by it.
_NOT_NOW = (socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM)

# Host and port to entries as getaddrinfo gives them. Raises OSError.
Resolve = Callable[[str, int], Awaitable[list[Any]]]


class UnwellError(Exception):
    """The endpoint has answered, and not as a healthy one does. Its text says what it did, in one line."""


class CannotAskError(Exception):
    """There is something missing on this side, which says nothing of the endpoint. Its text says what."""


async def connect(host: str, port: int, resolve: Resolve, greeting: bytes = b"") -> socket.socket:
    """A connected socket; to whichever address of a name answers first. Raises OSError, CannotAskError.

    greeting: what it begins with: a PROXY header. A new connection's buffer has room for it.
    """
    sock = connect_unix(host) if is_unix(host) else await _connect(host, port, resolve)
    if greeting:
        try:
            sock.send(greeting)
        except BaseException:
            sock.close()
            raise
    return sock


async def _connect(host: str, port: int, resolve: Resolve) -> socket.socket:
    if is_address(host):
        found: list[Any] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    else:
        try:
            found = await resolve(host, port)
        except socket.gaierror as error:
            if error.errno not in _NOT_NOW:
                raise
            raise CannotAskError((error.strerror or str(error)).lower()) from None
    return await names.connect(found, asyncio.get_running_loop())


@asynccontextmanager
async def conversation(
    host: str, port: int, resolve: Resolve, greeting: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to read and write while the context lasts. Raises OSError, CannotAskError."""
    sock = await connect(host, port, resolve, greeting)
    try:
        opening = asyncio.open_unix_connection if is_unix(host) else asyncio.open_connection
        reader, writer = await opening(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):  # how it ended is known already
            await writer.wait_closed()
