"""A localhost port: where the applications' connections come in, and what is made of each."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import StartError
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.tcp import TcpSession

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Sequence

    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext

__all__ = ["BACKLOG", "Listener", "cannot_listen", "has_no_such_family"]

BACKLOG = 4096  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn

_PROTOCOLS: dict[str, Any] = {"http": DownstreamConnection, "redis": TcpSession, "tcp": TcpSession}
_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or give the upstream another port under sidecar.ports",
    errno.EACCES: "ports below 1024 need a privilege; give the upstream another port under sidecar.ports",
    errno.EADDRNOTAVAIL: "this host has no such address; see sidecar.bind",
}
_NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listener:
    """One port on one or more addresses, in front of one cluster.

    addresses: hosts to bind; port: 0 takes a free one, the same on each address.
    bound: (host, port) pairs once `start` has returned.
    """

    __slots__ = ("_addresses", "_context", "_port", "_servers", "bound", "cluster")

    def __init__(self, context: ProxyContext, cluster: Cluster, addresses: Sequence[str], port: int) -> None:
        self._context = context
        self._addresses = addresses
        self._port = port
        self._servers: list[asyncio.AbstractServer] = []
        self.bound: list[tuple[str, int]] = []
        self.cluster = cluster

    async def start(self) -> None:
        """Bind and accept. Raises StartError when an address cannot be bound.

        An IPv6 address beside an IPv4 one is left out on a host without IPv6 (behaviour 9).
        """
        protocol = partial(_PROTOCOLS[self.cluster.scheme], self._context, self.cluster)
        for host in self._addresses:
            try:
                server = await self._context.network.create_server(
                    protocol, host, self._port, backlog=BACKLOG
                )
            except OSError as error:
                if self.bound and has_no_such_family(host, error):
                    continue
                self.close()
                raise cannot_listen(self.cluster.name, host, self._port, error) from None
            self._take(server, host)

    async def adopt(self, host: str, bound: socket.socket) -> None:
        """Accept from a socket that somebody else has bound, and keeps open when this one closes it."""
        protocol = partial(_PROTOCOLS[self.cluster.scheme], self._context, self.cluster)
        self._take(await self._context.network.create_server(protocol, sock=bound, backlog=BACKLOG), host)

    def _take(self, server: asyncio.Server, host: str) -> None:
        self._servers.append(server)
        self._port = server.sockets[0].getsockname()[1]
        self.bound.append((host, self._port))
        self._context.listening.add((host, self._port))

    def close(self) -> None:
        """Accept no more; connections that are open go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()


def has_no_such_family(host: str, error: OSError) -> bool:
    """Whether an IPv6 address could not be bound because this host has no IPv6."""
    return ":" in host and error.errno in _NO_FAMILY


def cannot_listen(upstream: str, host: str, port: int, error: OSError) -> StartError:
    """What to tell about an address that cannot be bound."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # uvloop words the error around the address; the number's own words are shorter.
    number = error.errno or 0
    said = os.strerror(number).lower() if number in errno.errorcode else error.strerror
    hint = _HINTS.get(number, "see sidecar.bind and sidecar.ports")
    return StartError(f"cannot listen on {place} for {upstream}: {said}; {hint}")
