"""One conversation with one endpoint: opened as the data path opens its connections, and closed whatever happens."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import is_address
from sidecar.net import names
from sidecar.net.unix import is_unix
from sidecar.net.unix_sockets import connect as connect_unix

if TYPE_CHECKING:
    from sidecar.tls.client import ClientTls

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
    host: str, port: int, resolve: Resolve, greeting: bytes = b"", tls: ClientTls | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to read and write while the context lasts. tls: how it is secured; None is in the clear.

    Raises OSError, CannotAskError, and UnwellError where the endpoint's certificate is not to be trusted.
    """
    sock = await connect(host, port, resolve, greeting)
    try:
        opening: Any = asyncio.open_unix_connection if is_unix(host) else asyncio.open_connection
        if tls is None:
            reader, writer = await opening(sock=sock)
        else:
            reader, writer = await opening(sock=sock, ssl=tls.context, server_hostname=tls.server_name(host))
    except ssl.SSLError as error:
        sock.close()
        assert tls is not None
        raise _insecure(tls, host, error) from None
    except BaseException:
        sock.close()
        raise
    try:
        if tls is not None:
            tls.check(writer.get_extra_info("ssl_object"))
        yield reader, writer
    except ssl.SSLError as error:  # not of the certificate's name, or refused late, as TLS 1.3 has it
        assert tls is not None
        raise _insecure(tls, host, error) from None
    finally:
        writer.transport.abort()
        with suppress(OSError):  # how it ended is known already
            await writer.wait_closed()


def _insecure(tls: ClientTls, host: str, error: ssl.SSLError) -> UnwellError:
    found = tls.why(host, error)
    return UnwellError(f"{found.outcome.label}: {found}")
