"""From a name's addresses to a connection: for all who dial names, for requests or to ask whether somebody is well.

Addresses are entries as getaddrinfo gives them.
"""

from __future__ import annotations

import os
import socket
from errno import EINPROGRESS, EINTR
from typing import TYPE_CHECKING, Any

import aiohappyeyeballs

if TYPE_CHECKING:
    import asyncio

__all__ = ["connect", "loopback", "with_port"]

HAPPY_EYEBALLS_DELAY = 0.25  # seconds before the next address is tried beside the first (RFC 8305 section 5)
# RFC 6761 6.3: localhost is the loopback, whatever a hosts file forgets; 127.0.0.1 first, where most listen.
_LOOPBACK: list[Any] = [
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0)),
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 0, 0, 0)),
]


def loopback(host: str, port: int) -> list[Any] | None:
    """The addresses of localhost, which nobody has to be asked for; None for any other name."""
    return with_port(_LOOPBACK, port) if host.lower().rstrip(".") == "localhost" else None


def with_port(entries: list[Any], port: int) -> list[Any]:
    """The same addresses with `port`."""
    return [
        (family, kind, protocol, canonical, (address[0], port, *address[2:]))
        for family, kind, protocol, canonical, address in entries
    ]


async def connect(entries: list[Any], loop: asyncio.AbstractEventLoop) -> socket.socket:
    """A connected socket, to whichever of the addresses answers first. Raises OSError."""
    connecting: Any = _Connecting(loop)
    return await aiohappyeyeballs.start_connection(
        entries, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, interleave=1, loop=connecting
    )


class _Connecting:
    """What the race of addresses uses of a loop.

    uvloop's own `sock_connect` asks getaddrinfo for addresses too, and waits for one of its four threads, which names
    that nobody answers for may hold for as long as the system's resolver has patience.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket that does not block. Raises OSError."""
        number = sock.connect_ex(address)
        if number in (EINPROGRESS, EINTR):
            writable: asyncio.Future[None] = self._loop.create_future()
            self._loop.add_writer(sock, _set, writable)
            try:
                await writable
            finally:
                self._loop.remove_writer(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))


def _set(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)
