"""A localhost port, or a unix socket: where the applications' connections come in, and what is made of each."""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.net.tls import TlsTransport
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.entrance import Entrance
from sidecar.proxy.proxied import ProxiedConnection
from sidecar.proxy.tcp import TcpSession

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.secure import ServerTls

__all__ = ["BACKLOG", "Listener"]

BACKLOG = 4096  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn

# From 3.13 on asyncio removes the file of a unix socket that it stops to listen at: here that is for `ports` to do.
_KEPT: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Listener:
    """What accepts for one cluster, on one or more sockets that somebody else has bound, see `ports`.

    bound: (host, port) of each; of a unix socket (`unix:PATH`, 0).
    """

    __slots__ = ("_context", "_servers", "bound", "cluster")

    def __init__(self, context: ProxyContext, cluster: Cluster) -> None:
        self._context = context
        self._servers: list[asyncio.AbstractServer] = []
        self.bound: list[tuple[str, int]] = []
        self.cluster = cluster

    async def adopt(
        self, host: str, bound: socket.socket, *, accept_proxy: bool = False, tls: ServerTls | None = None
    ) -> None:
        """Accept from `bound`, a listening socket at `host` (or `unix:PATH`), which is its own from now on.

        accept_proxy: connections begin with a PROXY header. tls: what clients speak; None in the clear.
        Somebody may keep another descriptor of the same socket: then connections go on to be queued there when this
        one is closed.
        """
        kind: Any = DownstreamConnection if self.cluster.per_request else TcpSession
        protocol: Any = partial(kind, self._context, self.cluster)
        if tls is not None:
            protocol = partial(self._secured, tls, protocol)
        if accept_proxy:
            protocol = partial(ProxiedConnection, self._context, self.cluster, protocol)
        unix = bound.family == socket.AF_UNIX
        place = (host, 0 if unix else bound.getsockname()[1])
        network = self._context.network
        try:
            if unix:
                server = await network.create_unix_server(protocol, sock=bound, backlog=BACKLOG, **_KEPT)
            else:
                server = await network.create_server(protocol, sock=bound, backlog=BACKLOG)
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
