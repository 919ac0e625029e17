"""The TLS handshake with a client, between the moment that a listener accepts it and its protocol's start."""

from __future__ import annotations

from ssl import SSLError
from typing import TYPE_CHECKING, Any

from sidecar.proxy.downstream import RETIRE_QUIET

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.net.tls import TlsTransport
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.secure import ServerTls

__all__ = ["Entrance"]

# What nginx says to the same mistake, with its status; OpenSSL knows a request of GET, HEAD, POST, PUT or CONNECT.
_PLAIN_REQUEST = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")
_PLAIN_BODY = b"sidecar: this port speaks TLS, and the request came without it; use https://\n"
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_PLAIN_BODY), _PLAIN_BODY)
)


class Entrance:
    """An `Owner` (see `net.tls`), and a member of the sweep. What is accepted is a client, and is counted once.

    factory: makes the protocol, which has a `peer` where a PROXY header may come before. deadline: of the handshake,
    `head_timeout` after the connection. speaks_http: who begins with an HTTP request is told what is wrong.
    """

    __slots__ = ("_began", "_context", "_factory", "_secure", "_speaks_http", "_tls", "deadline")

    def __init__(
        self, context: ProxyContext, secure: ServerTls, factory: Callable[[], Any], *, speaks_http: bool
    ) -> None:
        self._context = context
        self._secure = secure
        self._factory = factory
        self._speaks_http = speaks_http
        self._tls: TlsTransport | None = None
        self._began = context.sweep.soon
        self.deadline = self._began + context.head_timeout

    # What the transport tells

    def connected(self, tls: TlsTransport) -> None:
        """The listener has accepted it."""
        context = self._context
        if context.clients >= context.max_clients:
            context.refused += 1
            tls.abort()
            return
        context.clients += 1
        context.sweep.members.add(self)
        self._tls = tls
        tls.start(self._secure.wrap(tls.incoming, tls.outgoing))

    def secured(self, tls: TlsTransport) -> None:
        """The handshake is over: may this client come?"""
        self._leave()
        try:
            self._secure.accept(tls.get_extra_info("ssl_object"))
        except SSLError as error:
            tls.close()
            self._secure.failed(error)
            return
        protocol = self._factory()
        if tls.peer is not None:
            protocol.peer = tls.peer
        tls.set_protocol(protocol)
        protocol.connection_made(tls)  # which counts it again

    def unsecured(self, tls: TlsTransport, error: Exception) -> None:
        """The handshake has failed."""
        if self._tls is None:
            return
        self._leave()
        self._secure.failed(error)
        if self._speaks_http and getattr(error, "reason", None) in _PLAIN_REQUEST:
            tls.close_in_clear(_PLAIN_ANSWER)

    def heard(self, tls: TlsTransport) -> None:
        """It is the protocol's."""

    def refused(self, tls: TlsTransport, error: Exception) -> None:
        """The client does not want the listener's certificate, as a rule."""
        self._secure.failed(error)

    def _leave(self) -> None:
        self._tls = None
        self._context.sweep.members.discard(self)
        self._context.clients -= 1

    # The sweep's callbacks

    def expire(self) -> None:
        """The handshake takes too long."""
        self.shut()
        self._secure.failed(TimeoutError("the handshake did not end in time"))

    def retire(self, now: float) -> bool:
        """The process would like to end: who has connected just now has something to ask."""
        if now < self._began + RETIRE_QUIET:
            return True
        self.shut()
        return False

    def shut(self) -> None:
        """The process ends now."""
        tls = self._tls
        self._leave()
        if tls is not None:
            tls.abort()
