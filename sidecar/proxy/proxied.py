"""A client connection that begins with a PROXY header, up to the header's end: then it is what it would be without.

    accept ─► ProxiedConnection ─ header ─► the connection's own protocol, whose `peer` is the client that it names
                    └─ no header, a bad one, none in time ─► closed

The header is required, and nothing else is made of what lacks it: who may leave it out may be anybody (section 2 of the
protocol, see `net.proxy_header`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.net.proxy_header import MAX_HEADER, HeaderError, read_header, write_header
from sidecar.net.receiver import Receiver

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Callable

    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext

__all__ = ["ProxiedConnection", "greeting"]

# Positions in `UpstreamStats.proxy_headers`.
_ACCEPTED, _INVALID, _TIMEOUT, _CLOSED = 0, 1, 2, 3


class ProxiedConnection(Receiver):
    """Whoever comes next (TLS, or the protocol itself) has `peer` set before it hears of its connection.

    factory: makes it. deadline: for the sweep.
    """

    __slots__ = ("_context", "_factory", "_held", "_over", "cluster", "deadline", "transport")

    transport: Transport

    def __init__(self, context: ProxyContext, cluster: Cluster, factory: Callable[[], Any]) -> None:
        self._context = context
        self._factory = factory
        self._held = b""
        self._over = False
        self.cluster = cluster
        self.deadline = context.sweep.soon + context.head_timeout

    def connection_made(self, transport: Transport) -> None:
        """The listener accepted it. It is a client from now on."""
        self.transport = transport
        context = self._context
        context.clients += 1
        context.sweep.members.add(self)
        if context.clients > context.max_clients:
            context.refused += 1
            self._over = True
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of the header, and what comes behind it."""
        if self._over:
            return
        self._held += data
        try:
            # Behind the header there may be a whole read of requests, which is none of its length.
            header = read_header(self._held[:MAX_HEADER])
        except HeaderError:
            self._end(_INVALID)
            return
        if header is None:
            return
        self.cluster.stats.proxy_headers[_ACCEPTED] += 1
        self._leave()
        protocol = self._factory()
        protocol.peer = header.peer
        rest, self._held = self._held[header.size :], b""
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if rest and not self.transport.is_closing():
            protocol.data_received(rest)

    def _leave(self) -> None:
        """It is another's from now on, or nobody's."""
        self._over = True
        self._context.clients -= 1
        self._context.sweep.members.discard(self)

    def _end(self, result: int) -> None:
        self.cluster.stats.proxy_headers[result] += 1
        self._over = True
        self.transport.abort()

    def eof_received(self) -> bool:
        """The client will send no more: it has gone."""
        if not self._over:
            self._end(_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        if not self._over:
            self.cluster.stats.proxy_headers[_CLOSED] += 1
        self._leave()

    def pause_writing(self) -> None:
        """Nothing is written here."""

    def resume_writing(self) -> None:
        """The same."""

    # The sweep's callbacks

    def expire(self) -> None:
        """No header in time."""
        if not self._over:
            self._end(_TIMEOUT)

    def retire(self, now: float) -> bool:
        """The process would like to end: nothing has begun here."""
        self.shut()
        return False

    def shut(self) -> None:
        """The process ends now."""
        self._over = True
        self.transport.abort()


def greeting(version: int, transport: Transport, peer: Any) -> bytes:
    """The header that an endpoint is sent for a client. peer: as a PROXY header of the client's own names it."""
    if peer is not None:
        return write_header(version, peer, peer.reached)
    return write_header(version, transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
