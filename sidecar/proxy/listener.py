"""A localhost port: where the applications' connections come in, and what is made of each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.net.tls import TlsTransport
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.entrance import Entrance
from sidecar.proxy.tcp import TcpSession

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.secure import ServerTls

__all__ = ["BACKLOG", "Listener"]

BACKLOG = 4096  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn


class Listener:
    """What accepts for one cluster, on one or more sockets that somebody else has bound, see `ports`.

    bound: (host, port) of each. tls: what its clients speak; None in the clear.
    """

    __slots__ = ("_context", "_servers", "bound", "cluster", "tls")

    def __init__(self, context: ProxyContext, cluster: Cluster, tls: ServerTls | None = None) -> None:
        self._context = context
        self.tls = tls
        self._servers: list[asyncio.AbstractServer] = []
        self.bound: list[tuple[str, int]] = []
        self.cluster = cluster

    async def adopt(self, host: str, bound: socket.socket) -> None:
        """Accept from `bound`, a listening socket at `host`, which is its own from now on.

        Somebody may keep another descriptor of the same socket: then connections go on to be queued there when this
        one is closed.
        """
        kind: Any = DownstreamConnection if self.cluster.per_request else TcpSession
        protocol = partial(kind, self._context, self.cluster)
        if self.tls is not None:
            protocol = partial(self._secured, self.tls, protocol)
        place = (host, bound.getsockname()[1])
        try:
            server = await self._context.network.create_server(protocol, sock=bound, backlog=BACKLOG)
        except BaseException:
            bound.close()
            raise
        self._servers.append(server)
        self.bound.append(place)
        self._context.listening.add(place)

    def _secured(self, tls: ServerTls, factory: Callable[[], Any]) -> TlsTransport:
        """What an accepted connection begins with, before it is what `factory` makes."""
        http = self.cluster.per_request
        return TlsTransport(self._context.loop, Entrance(self._context, tls, factory, speaks_http=http))

    def close(self) -> None:
        """Accept no more; connections that are open go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._context.listening.difference_update(self.bound)
