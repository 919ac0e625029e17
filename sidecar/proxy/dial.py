"""Opening one connection to one endpoint: the only coroutine of the data path, where it needs one.

Addresses of a name are tried as RFC 8305 (happy eyeballs) says, because `localhost` and dual-stack names
mean both families to whoever configured them. uvloop's own create_connection tries them one after another.

    TCP stands ─► leads not back to us ─► TLS, where the upstream has it ─► the protocol is made ─► on_connected

The handshake is within the connect time-out, and takes up the session of the endpoint's last full one, which saves
both sides their signatures (`handshake.ToEndpoint`).
"""

from __future__ import annotations

from functools import lru_cache, partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import OWN_SHORTAGES, Reason
from sidecar.model import Outcome
from sidecar.net.names import connect
from sidecar.net.tls import TlsTransport
from sidecar.net.unix import is_unix, spelt
from sidecar.net.unix_sockets import connect as connect_unix
from sidecar.proxy.handshake import ToEndpoint

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState
    from sidecar.proxy.context import ProxyContext

__all__ = ["UNCONNECTED", "Dial", "Dialer"]

# How a connection was not to be had: what the request that nobody else takes is answered with, and where
# `UpstreamStats.connects` counts it.
UNCONNECTED = {
    Outcome.CONNECT_REFUSED: (Reason.CONNECT_REFUSED, 1),
    Outcome.CONNECT_TIMEOUT: (Reason.CONNECT_TIMEOUT, 2),
    Outcome.TLS_EXPIRED: (Reason.TLS_EXPIRED, 3),
    Outcome.TLS_WRONG_HOST: (Reason.TLS_WRONG_HOST, 3),
    Outcome.TLS_UNKNOWN_CA: (Reason.TLS_UNKNOWN_CA, 3),
    Outcome.TLS_FAILED: (Reason.TLS_FAILED, 3),
}


class Dialer(Protocol):
    """Who wanted the connection. cluster: the upstream whose endpoint it is to."""

    cluster: Cluster

    def on_connected(self, dial: Dial, connection: Any) -> None:
        """It is open: `connection` is what the factory made."""

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        """It could not be opened: one of `UNCONNECTED`, or LOCAL_SHORTAGE."""


class Dial:
    """One attempt to connect. It ends in exactly one call of its dialer, or in none after `cancel`.

    factory: makes the protocol; duck-typed, as ours do not inherit asyncio.Protocol.
    greeting: what the connection begins with, before anything of the protocol's: a PROXY header.
    deadline: monotonic seconds; the sweep ends the attempt then.
    """

    __slots__ = ("_context", "_dialer", "_factory", "_secure", "_task", "deadline", "endpoint", "greeting")

    def __init__(
        self,
        context: ProxyContext,
        endpoint: EndpointState,
        factory: Callable[[], Any],
        timeout: float,
        dialer: Dialer,
        greeting: bytes = b"",
    ) -> None:
        self._context = context
        self._dialer = dialer
        self._factory = factory
        tls = dialer.cluster.tls
        self._secure = None if tls is None else ToEndpoint(tls, endpoint, factory, self._told_secure)
        if self._secure is not None:
            self._factory = partial(TlsTransport, context.loop, self._secure)
        self.endpoint = endpoint
        self.greeting = greeting
        self.deadline = context.sweep.soon + timeout
        context.sweep.members.add(self)
        self._task = self._start()

    def _start(self) -> Any:
        """What is at work: something that can be cancelled."""
        endpoint = self.endpoint.endpoint
        # The compiled build's network (`net.network`) connects to addresses without a coroutine.
        connect_to = getattr(self._context.network, "connect_to", None)
        work = None
        if connect_to is not None and (_is_address(endpoint.host) or is_unix(endpoint.host)):
            work = connect_to(self._factory, endpoint.host, endpoint.port, self._told)
        return self._context.loop.create_task(self._connect()) if work is None else work

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._leave()

    shut = cancel

    def retire(self, now: float) -> bool:
        """Somebody's request is behind it: it goes on."""
        return True

    def expire(self) -> None:
        """The connect time-out is over."""
        self._leave()
        self._dialer.on_connect_failed(self, Outcome.CONNECT_TIMEOUT)

    def _leave(self) -> None:
        self._context.sweep.members.discard(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _connect(self) -> None:
        endpoint = self.endpoint.endpoint
        try:
            transport, protocol = await self._open(endpoint.host, endpoint.port)
        except OSError as error:
            if self._task is not None:
                self._told(None, None, error)
        else:
            self._told(transport, protocol, None)

    def _told(self, transport: Any, protocol: Any, error: OSError | None) -> None:
        """The connection is open, or could not be opened."""
        self._task = None
        if error is None:
            try:
                self._check(transport)
                self._greet(transport)
            except OSError as refusal:
                error = refusal
        if error is None and self._secure is not None:
            self._task = self._secure
            self._secure.start(protocol)
            return
        self._context.sweep.members.discard(self)
        if error is None:
            self._dialer.on_connected(self, protocol)
            return
        ours = error.errno in OWN_SHORTAGES
        outcome = Outcome.LOCAL_SHORTAGE if ours else Outcome.CONNECT_REFUSED
        self._dialer.on_connect_failed(self, outcome)

    def _told_secure(self, protocol: Any, outcome: Outcome) -> None:
        """The handshake has ended: in SUCCESS, or as `ClientTls.failed` says."""
        self._task = None
        self._context.sweep.members.discard(self)
        if outcome is Outcome.SUCCESS:
            self._dialer.on_connected(self, protocol)
        else:
            self._dialer.on_connect_failed(self, outcome)

    async def _open(self, host: str, port: int) -> tuple[Any, Any]:
        loop, network = self._context.loop, self._context.network
        if _is_address(host):
            made: tuple[Any, Any] = await network.create_connection(self._factory, host, port)
            return made
        if is_unix(host):
            sock, create = connect_unix(host), network.create_unix_connection
        else:
            sock = await connect(await self._context.resolver.resolve(host, port), loop)
            create = network.create_connection
        try:
            made = await create(self._factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        return made

    def _check(self, transport: asyncio.BaseTransport) -> None:
        """Refuse what has ended already (nobody would be told any more) and what leads back here.

        A proxy that is its own endpoint multiplies one request until a bound stops it. The configuration finds
        the plain spellings of that; a name or an odd spelling of the loopback shows only once it is connected.
        """
        if transport.is_closing():
            raise ConnectionResetError
        if _leads_back(transport, self._context.listening):
            transport.close()
            raise ConnectionRefusedError

    def _greet(self, transport: Any) -> None:
        """Say who the client is, before anybody says anything else, be it TLS."""
        if self.greeting:
            transport.write(self.greeting)


def _leads_back(transport: asyncio.BaseTransport, listening: set[tuple[str, int]]) -> bool:
    """Whether the other end of a connection is one of our own listeners."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return (spelt(peer), 0) in listening
    host, port = peer[0].removeprefix("::ffff:"), peer[1]
    if (host, port) in listening:
        return True
    # A listener on every address is met at the very address that the connection comes from.
    wildcard = ("0.0.0.0", port) in listening or ("::", port) in listening
    return wildcard and transport.get_extra_info("sockname")[0].removeprefix("::ffff:") == host


@lru_cache(maxsize=1024)  # endpoints are dialled again and again
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
